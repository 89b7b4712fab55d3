"""The report as a page: the network in order, each operator coloured by the noise it makes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..metrics import Step
from . import as_decibels, page
from .lanes import lanes_of

# of a row, for the details that a reader opens
SHOWN = (
    *("name", "operator", "precision", "reason", "noise_share", "sqnr", "local_sqnr", "low"),
    *("high", "parameters", "multiply_adds", "advice", "weight_bits", "activation_bits"),
)


def report_page(report: Mapping[str, Any]) -> str:
    """The page of a report, given as `Report.to_dict` has it."""
    rows = [row | {"path": row["path"] or row["name"]} for row in report["rows"]]
    for row, lane in zip(rows, lanes_of([(r["name"], r["reads"]) for r in rows]), strict=True):
        row |= {
            "graph": lane,
            "advice": advice(row, rows),
            "spread": report["spreads"].get(row["name"]),
        }
    return page(
        "report",
        "Octavo report",
        _facts(report),
        report=report,
        rows=rows,
        steps=[Step.from_dict(step).text("→") for step in report["steps"]],
        width=1 + max((lane for r in rows for lane in r["graph"].all), default=0),
        most=max((r["noise_share"] or 0.0 for r in rows), default=0.0),
        data=[{name: row[name] for name in SHOWN} for row in rows],
    )


def _facts(report: Mapping[str, Any]) -> dict[str, str]:
    rows, latency = report["rows"], report["latency"]
    count = sum(row["precision"] == "int8" for row in rows)
    before, after = (f"{report[key] / 1e6:.2f}" for key in ("bytes_before", "bytes_after"))
    facts = {
        "output SQNR": f"{as_decibels(report['output_sqnr'])} dB",
        "multiply-adds in int8": f"{100 * report['int8_share']:.1f} %",
        "operators in int8": f"{count} of {len(rows)}",
        "size": f"{before} → {after} MB",
    }
    if latency:
        where = "{engine}, batch {batch}, threads: {threads}".format_map(latency)
        facts[f"latency ({where})"] = f"{latency['milliseconds']:.3f} ms"
    return facts


def advice(row: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Settings to try for a row, to be copied: by its path, if that names it alone."""
    path = row["path"]
    alone = sum(f"{r['path']}.".startswith(f"{path}.") for r in rows) == 1
    entry = f'"{path}"' if alone else str(row["site"])
    if row["site"] is None or (row["precision"] == "float" and row["weight_bits"] is None):
        return []
    found = [f"octavo.Config(keep_float=[{entry}])"]
    if "linear" in row["operator"] and row["activations"] == "static":
        found.append(f'octavo.Config(sites={{{entry}: octavo.SiteConfig(activations="dynamic")}})')
    return found
