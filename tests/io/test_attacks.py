"""Hostile files: `fuzz/attacks.py` makes them, `octavo.load` must refuse them all."""

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

import octavo

SCRIPT = Path(__file__).parents[2] / "fuzz" / "attacks.py"
spec = importlib.util.spec_from_file_location("attacks", SCRIPT)
attacks = importlib.util.module_from_spec(spec)
spec.loader.exec_module(attacks)
ATTACKS = attacks.attacks()


@pytest.mark.parametrize("name", ATTACKS)
def test_hostile_files_are_refused(name, tmp_path):
    path = tmp_path / "x.octavo"
    path.write_bytes(ATTACKS[name])
    before = set(sys.modules)
    with pytest.raises(octavo.FormatError):
        octavo.load(path)
    assert "this" not in set(sys.modules) - before  # the module that two of them want imported


def test_the_file_they_are_changes_of_is_good():
    assert octavo.load(attacks.GOOD).report().rows
    assert attacks.packed(*attacks.parts())[8:9] == b"{"


MEASURE = """
import resource, sys, octavo
from pathlib import Path
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
octavo.load(sys.argv[2])
before = peak()
for path in Path(sys.argv[1]).iterdir():
    try:
        octavo.load(path)
    except octavo.FormatError:
        pass
print(peak() - before)
"""


def test_refusing_them_takes_little_memory(tmp_path):
    attacks.write(tmp_path / "attacks")
    # as much metadata as a file may hold, of what takes most memory as Python objects
    header, body = attacks.parts()
    header["__metadata__"]["graph"] = "[" + "{}," * 5_000_000 + "{}]"
    (tmp_path / "attacks" / "much.octavo").write_bytes(attacks.packed(header, body))
    command = [sys.executable, "-c", MEASURE, tmp_path / "attacks", attacks.GOOD]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert float(done.stdout) < 700  # MB
