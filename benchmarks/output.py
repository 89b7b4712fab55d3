"""How results are written: the machine they are of, numbers, tables and files."""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import importlib.metadata
import io
import json
import platform
import re
import shlex
import sys
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

import octavo

from .measuring import THREADS

PACKAGES = ["torch", "torchvision", "transformers", "openvino", "nncf", "onnxruntime", "torchao"]
WIDTH = 200  # of a page; tables are as narrow as they can be


# ---- the machine


def machine() -> dict[str, str]:
    """What the figures depend on: processor, cores and versions."""
    facts = {"cpu": cpu_model(), "cores": str(THREADS), "octavo": octavo.__version__}
    for package in PACKAGES:
        try:
            facts[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            facts[package] = "missing"
    return facts


def cpu_model() -> str:
    with contextlib.suppress(OSError), open("/proc/cpuinfo") as lines:
        for line in lines:
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def as_line(facts: dict[str, str]) -> str:
    return ", ".join(f"{name} {value}" for name, value in facts.items())


# ---- numbers and tables


def number(value: float | None, digits: int, factor: float = 1, unit: str = "") -> str:
    """`factor * value` with so many digits after the point; nothing where there is no value."""
    return "" if value is None else f"{factor * value:.{digits}f}{unit}"


def make_table(
    columns: Sequence[str],
    style: box.Box = box.MARKDOWN,
    texts: Collection[int] = (0,),
) -> Table:
    """An empty table; columns are aligned to the right but for those of `texts`."""
    table = Table(box=style, show_edge=style is box.MARKDOWN)
    for i, column in enumerate(columns):
        table.add_column(column, justify="left" if i in texts else "right", no_wrap=True)
    return table


def as_text(*parts: Table | str) -> str:
    """Tables and lines of text below each other, with no more than one empty line in a row."""
    console = Console(file=io.StringIO(), width=WIDTH)
    for part in parts:
        console.print(part, markup=False, emoji=False, soft_wrap=isinstance(part, str))
    lines = (line.rstrip() for line in console.file.getvalue().splitlines())
    return re.sub(r"\n{3,}", "\n\n", "\n".join(lines)).rstrip("\n") + "\n"


def bullets(notes: Iterable[str]) -> list[str]:
    return [f"- {note}" for note in notes]


# ---- files


def write_page(file: Path | None, text: str, facts: dict[str, str]) -> None:
    """Write a page of docs/measured, if a file is given: command, date, machine, then the text."""
    if file:
        command = shlex.join(["python", *sys.orig_argv[1:]])
        title = next((word for word in command.split() if word.startswith("benchmarks")), command)
        about = f"{datetime.date.today()}; {as_line(facts)}"
        file.write_text(f"# {title}\n\n    {command}\n\n{about}\n\n{text}")


def print_tables(tables: Iterable[Table | str], file: Path | None) -> None:
    """Print the machine and tables, and write them to a page if a file is given."""
    facts, text = machine(), as_text(*tables)
    print(as_text(as_line(facts), text), end="")
    write_page(file, text, facts)


def write_json(file: Path | None, facts: dict[str, str], results: Iterable[Any]) -> None:
    """Write the machine and all fields of the results (dataclasses), if a file is given."""
    if file:
        rows = [dataclasses.asdict(r) for r in results]
        file.write_text(json.dumps({"machine": facts, "results": rows}))
