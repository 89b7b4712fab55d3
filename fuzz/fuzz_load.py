"""Fuzz `octavo.load` with atheris: whatever the bytes, a model or a FormatError.

    pip install -e .[fuzz]
    python fuzz/fuzz_load.py -runs=1000000 -rss_limit_mb=4096 fuzz/corpus fuzz/attacks

Bytes that begin with "[" become the graph of a good file, so that they get past its header; all
others are a whole file. Anything but a FormatError that is raised, or a crash, ends the run.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import tempfile
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["octavo"]):
    import octavo

sys.path.insert(0, str(Path(__file__).parent))
import attacks

HEADER, BODY = attacks.parts()
MEMORY = "/dev/shm" if os.path.isdir("/dev/shm") else None
FILE = Path(tempfile.mkdtemp(dir=MEMORY), "x.octavo")


def one(data: bytes) -> None:
    if data.startswith(b"["):
        text = data.decode("utf-8", "replace")
        header = HEADER | {"__metadata__": HEADER["__metadata__"] | {"graph": text}}
        content = attacks.packed(header, BODY)
    else:
        content = data
    FILE.write_bytes(content)
    with contextlib.suppress(octavo.FormatError):
        octavo.load(FILE)


def seeds(folder: Path) -> None:
    """The good file, its graph and those of the attacks as the second form, all attacks."""
    folder.mkdir(exist_ok=True)
    attacks.write(attacks.FOLDER)
    folder.joinpath("good").write_bytes(attacks.GOOD.read_bytes())
    folder.joinpath("graph").write_text(HEADER["__metadata__"]["graph"])
    for name, change in attacks.GRAPHS.items():
        graph = json.loads(HEADER["__metadata__"]["graph"])
        change(graph)
        folder.joinpath(name).write_text(json.dumps(graph))


if __name__ == "__main__":
    seeds(Path(__file__).parent / "corpus")
    atheris.Setup(sys.argv, one)
    atheris.Fuzz()
