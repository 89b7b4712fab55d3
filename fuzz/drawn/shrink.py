"""The fewest lines that still show a finding, found by leaving out one after the other."""

from __future__ import annotations

import re
import time

from .check import check
from .draw import runs
from .program import Program


def kind(what: str) -> str:
    """A finding without its numbers and names, which differ from network to network."""
    what = re.sub(r"'[^']*'", "'...'", re.sub(r"\([\d, N]+\)", "(...)", what))
    return re.sub(r"-?(\d+(\.\d+)?|inf)\b", "N", re.sub(r"\b[vxms]\d+\b", "V", what))[:120]


def shrunk(program: Program, stage: str, what: str, seconds: float = 60) -> tuple[Program, str]:
    """A smaller program in which the stage finds a thing of the same kind, and what it finds."""
    deadline = time.monotonic() + seconds

    def still(candidate: Program) -> str | None:
        found = runs(candidate) and check(candidate, (stage,)).findings.get(stage)
        return found if found and kind(found) == kind(what) else None

    while True:
        for candidate in program.smaller():
            if time.monotonic() > deadline:
                return program, what
            if found := still(candidate):
                program, what = candidate, found
                break
        else:
            return program, what
