import pytest
from rich.table import Table

from octavo.printed import Printed


class Result(Printed):
    def __rich__(self):
        table = Table("module", title="a result")
        table.add_row("layer1.conv")
        return table


def test_the_text_is_the_table():
    assert "a result" in str(Result()) and "layer1.conv" in str(Result())


def test_a_result_without_a_table():
    with pytest.raises(NotImplementedError):
        str(Printed())
