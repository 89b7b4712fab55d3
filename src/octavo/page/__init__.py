"""The report as a page: one HTML file with all that it needs, for any browser, and no network."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from ..errors import FormatError
from ..metrics import decibels
from .lanes import lanes_of

# of a row, for sorting and for the details that a reader opens
SHOWN = (
    *("site", "path", "name", "operator", "precision", "reason", "noise_share", "sqnr"),
    *("local_sqnr", "low", "high", "parameters", "multiply_adds", "advice", "weight_bits"),
    "activation_bits",
)

ENVIRONMENT = Environment(
    loader=PackageLoader("octavo", "page"), autoescape=True, undefined=StrictUndefined
)


def write_page(report: Mapping[str, Any], path: str | os.PathLike[str]) -> None:
    """Write the page of a report, given as `Report.to_dict` has it.

    Raises FormatError where the folder is missing.
    """
    target = Path(path)
    if not target.parent.is_dir():
        raise FormatError(f"cannot write {target}: there is no folder {target.parent}")
    target.write_text(page_of(report), encoding="utf-8")


def page_of(report: Mapping[str, Any]) -> str:
    """The page as text."""
    rows = [row | {"path": row["path"] or row["name"]} for row in report["rows"]]
    for row, lane in zip(rows, lanes_of([(r["name"], r["reads"]) for r in rows]), strict=True):
        row |= {"graph": lane, "advice": advice(row), "spread": report["spreads"].get(row["name"])}
    template = ENVIRONMENT.get_template("report.html.jinja")
    shares = sorted((r["noise_share"] or 0.0 for r in rows), reverse=True)
    return template.render(
        report=report,
        rows=rows,
        width=1 + max((lane for r in rows for lane in r["graph"].all), default=0),
        most=shares[0] if shares else 0.0,
        decibels=as_decibels,
        data=[{name: row[name] for name in SHOWN} for row in rows],
    )


def as_decibels(value: Any) -> str:
    """A number of dB as text; infinite numbers are strings in a report's data."""
    return "" if value is None else decibels(float(value))


def advice(row: Mapping[str, Any]) -> list[str]:
    """Settings to try for a row, to be copied."""
    entry = row["path"]
    if row["site"] is None or (row["precision"] == "float" and row["weight_bits"] is None):
        return []
    found = [f'octavo.Config(keep_float=["{entry}"])']
    if "linear" in row["operator"] and row["activations"] == "static":
        found.append(
            f'octavo.Config(sites={{"{entry}": octavo.SiteConfig(activations="dynamic")}})'
        )
    return found
