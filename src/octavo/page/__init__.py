"""Results as pages: each is one HTML file with all that it needs, for any browser, no network."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from ..atomic import write_atomically
from ..metrics import decibels


def as_decibels(value: Any) -> str:
    """A number of dB as text; infinite numbers are strings in a result's data."""
    return "" if value is None else decibels(float(value))


ENVIRONMENT = Environment(
    loader=PackageLoader("octavo", "page"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
ENVIRONMENT.globals |= {
    "decibels": as_decibels,
    "none_as_empty": lambda value: "" if value is None else value,
    "zip": zip,
}


def page(template: str, title: str, facts: dict[str, str], **values: Any) -> str:
    """A page as text: a template of this folder, with facts in large letters under the title."""
    made = ENVIRONMENT.get_template(f"{template}.html.jinja")
    return made.render(title=title, facts=facts.items(), **values)


def write_page(text: str, path: str | os.PathLike[str]) -> None:
    """Write a page whole or not at all; raises FormatError where the folder is missing."""
    write_atomically(path, lambda temporary: Path(temporary).write_text(text, encoding="utf-8"))
