import os
import pty
import subprocess
import sys

import pytest
import torch

from octavo.progress import number_of_calls, tracked, working

PROGRAM = """
import time
from octavo.progress import tracked, working
with working("thinking"):
    time.sleep(0.3)
for _ in tracked(range(3), "calibrating", 3):
    time.sleep(0.2)
"""


def test_a_terminal_shows_what_is_done_and_how_far_it_is():
    terminal, end = pty.openpty()
    subprocess.run([sys.executable, "-c", PROGRAM], stderr=end, timeout=120, check=True)
    os.close(end)
    shown = os.read(terminal, 1 << 16).decode()
    assert "thinking" in shown and "calibrating" in shown and "2/3" in shown


def test_nothing_is_shown_elsewhere(capfd):
    with working("thinking"):
        assert [*tracked([1, 2], "calibrating", 2)] == [1, 2]
    assert capfd.readouterr() == ("", "")


def test_the_number_of_calls_is_that_of_the_data():
    assert number_of_calls([1, 2]) == 2 and number_of_calls(torch.zeros(5, 2)) == 1
    assert number_of_calls((torch.zeros(1), torch.zeros(1))) is None
    assert number_of_calls(iter([1])) is None


def test_an_error_of_the_items_is_passed_on():
    with pytest.raises(ZeroDivisionError):
        list(tracked((1 // i for i in (1, 0)), "calibrating", 2))
