"""What may be drawn, read from templates.txt, which says how it is written."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Row:
    """Templates of one operator, for values of some ranks."""

    operator: str
    ranks: str
    templates: tuple[str, ...]


@dataclass
class Group:
    """Rows, and how often a step is one of them."""

    name: str
    weight: int
    rows: list[Row]


def groups(text: str) -> list[Group]:
    """The groups of a text; see templates.txt."""
    found: list[Group] = []
    defined = dict(re.findall(r"^([A-Z_]+) = (.*)$", text, re.MULTILINE))
    text = re.sub(r"^(#|[A-Z_]+ = ).*\n", "", text, flags=re.MULTILINE)
    text = re.sub(r"\$([A-Z_]+)", lambda m: defined[m[1]], text)
    for block in re.split(r"^(?=\S)", text, flags=re.MULTILINE):
        head, *templates = block.split("\n")
        if head.startswith("== "):
            _, name, weight = head.split()
            found.append(Group(name, int(weight), []))
        elif head:
            lines = tuple(t.strip().replace("\\n", "\n") for t in templates if t.strip())
            found[-1].rows += _rows(*head.split(), lines)
    return found


def _rows(operator: str, ranks: str, templates: tuple[str, ...]) -> Iterator[Row]:
    if "{d}" in operator:
        for rank in ranks:
            yield Row(operator.replace("{d}", str(int(rank) - 2)), rank, templates)
    else:
        yield Row(operator, ranks.strip("-"), templates)


GROUPS = groups(Path(__file__).with_name("templates.txt").read_text())
ROWS = [row for group in GROUPS for row in group.rows]
