"""What was measured of the settings, as a table with a summary, in text or Markdown."""

from __future__ import annotations

import statistics
from collections.abc import Collection
from dataclasses import dataclass

from rich import box
from rich.table import Table

from ..output import as_text, bullets, make_table, number

COLUMNS = ("network", "peer", "accuracy", "agreement", "SQNR dB", "int8", "ms", "s")


@dataclass
class Result:
    """One setting on one network; None where there is no figure."""

    net: str
    peer: str
    error: str = ""
    accuracy: float | None = None
    agreement: float | None = None
    sqnr: float | None = None
    int8: float | None = None
    ms: float | None = None
    seconds: float | None = None


def results_table(results: list[Result], style: box.Box) -> Table:
    table = make_table(COLUMNS, style, texts=(0, 1))
    for r in results:
        cells = [
            number(r.accuracy, 2, factor=100),
            number(r.agreement, 2, factor=100),
            number(r.sqnr if r.sqnr is None or abs(r.sqnr) < 1e9 else None, 1),
            number(r.int8, 0, factor=100),
            number(r.ms, 2),
            number(r.seconds, 1),
        ]
        table.add_row(r.net, r.peer, *(["fails"] if r.error else cells))
    return table


def summary(results: list[Result], ours: Collection[str]) -> list[str]:
    """Each of our settings against the best of the others, over the networks; and all errors."""
    known = {(r.net, r.peer): r.sqnr for r in results if r.sqnr is not None and not r.error}
    networks = dict.fromkeys(r.net for r in results)
    lines = []
    for peer in ours:
        gains = {}
        for net in networks:
            others = [v for (n, p), v in known.items() if n == net and p not in (*ours, "float")]
            if others and (net, peer) in known:
                gains[net] = known[net, peer] - max(others)
        if gains:
            least = min(gains, key=gains.__getitem__)
            lines.append(
                f"{peer}: SQNR less best peer's: mean {statistics.mean(gains.values()):+.1f} dB, "
                f"least {gains[least]:+.1f} dB ({least})"
            )
    return lines + [f"{r.net}, {r.peer}: {r.error}" for r in results if r.error]


def means(results: list[Result]) -> list[str]:
    """Over the networks, the mean SQNR and the total time of each setting."""
    lines = []
    for peer in dict.fromkeys(r.peer for r in results if r.peer != "float"):
        of_peer = [r for r in results if r.peer == peer and r.sqnr is not None]
        mean = statistics.mean(r.sqnr for r in of_peer)
        total = sum(r.seconds or 0 for r in of_peer)
        lines.append(f"{peer}: mean SQNR {mean:.2f} dB, {total:.0f} s")
    return lines


def results_text(results: list[Result], style: box.Box, notes: list[str]) -> str:
    return as_text(results_table(results, style), "", *bullets(notes))
