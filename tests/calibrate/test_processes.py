import pytest

from octavo import ConfigError
from octavo.calibrate.processes import Ranks


def test_without_a_process_group_it_says_how_to_make_one():
    """With one: see tests/test_sharded.py, which starts processes."""
    with pytest.raises(ConfigError, match="init_process_group"):
        Ranks(10.0)
