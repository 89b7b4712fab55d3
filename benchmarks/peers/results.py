"""What was measured of the peers, as tables with a summary, in text or Markdown."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from dataclasses import dataclass, field

from rich import box
from rich.table import Table

from ..output import as_line, as_text, bullets, make_table, number
from .frameworks import PEERS

COLUMNS = ["model", "peer", "median ms", "min ms", "Octavo / peer"]
COLUMNS += ["ready s", "ready ratio", "SQNR dB"]
INT8_PEERS = [n for n, peer in PEERS.items() if peer.int8 and not peer.title.startswith("Octavo")]

Ratios = dict[tuple[str, str], float]  # by model and peer


@dataclass
class Result:
    """One peer on one model and batch size; None where there is no figure."""

    model: str
    batch: int
    peer: str
    error: str = ""
    ready_s: float | None = None
    sqnr_db: float | None = None
    median_ms: float | None = None
    min_ms: float | None = None
    octavo_file_mb: float | None = None
    times_ms: list[float] = field(default_factory=list)


# ---- ratios


def octavo_by_peer(results: list[Result], value: str) -> Ratios:
    """Octavo's `value` divided by the peer's, for each model and peer where both have one."""
    return divided_by_peer(results, value, "octavo")


def divided_by_peer(results: list[Result], value: str, of: str) -> Ratios:
    """One peer's `value` divided by that of each."""
    known = {(r.model, r.peer): v for r in results if (v := getattr(r, value)) is not None}
    dividends = {model: v for (model, peer), v in known.items() if peer == of}
    return {key: dividends[key[0]] / v for key, v in known.items() if key[0] in dividends}


def worst(ratios: Ratios, peers: list[str]) -> dict[str, float]:
    """By model, the ratio to the best of `peers`, which is the largest."""
    found: dict[str, float] = {}
    for (model, peer), ratio in ratios.items():
        if peer in peers:
            found[model] = max(ratio, found.get(model, 0))
    return found


# ---- text


def results_table(results: list[Result], style: box.Box) -> Table:
    """Results of one batch size; both ratios are below 1 where Octavo is faster."""
    table = make_table(COLUMNS, style, texts=(0, 1))
    slower, later = (octavo_by_peer(results, value) for value in ("median_ms", "ready_s"))
    for r in results:
        ratios = slower.get((r.model, r.peer)), later.get((r.model, r.peer))
        cells = [number(v, 2) for v in (r.median_ms, r.min_ms, ratios[0])]
        cells += [number(r.ready_s, 1), number(ratios[1], 2), number(r.sqnr_db, 1)]
        table.add_row(r.model, PEERS[r.peer].title, *(["fails"] if r.error else cells))
    return table


def summary(results: list[Result]) -> list[str]:
    """Over the models of one batch size: Octavo beside the best int8 peer, NNCF and float."""
    slower, later = (octavo_by_peer(results, value) for value in ("median_ms", "ready_s"))
    fast = divided_by_peer(results, "ready_s", "fast")
    speedups = {model: 1 / ratio for model, ratio in worst(slower, ["eager"]).items()}
    lines = [
        over_models("Octavo's median / fastest other int8 peer's", worst(slower, INT8_PEERS), max),
        over_models("Octavo's ready / NNCF's", worst(later, ["nncf"]), max),
        over_models("Octavo's ready with config='fast' / NNCF's", worst(fast, ["nncf"]), max),
        over_models("Octavo's ready / with config='fast'", worst(later, ["fast"]), max),
        over_models("eager float's median / Octavo's", speedups, min),
    ]
    return [line for line in lines if line]


def over_models(title: str, ratios: dict[str, float], extreme: Callable[..., str]) -> str:
    """A line with the geometric mean and the least favourable of the ratios, if there are any."""
    if not ratios:
        return ""
    model = extreme(ratios, key=ratios.get)
    mean = statistics.geometric_mean(ratios.values())
    return f"{title}: geometric mean {mean:.2f}, {extreme.__name__} {ratios[model]:.2f} ({model})"


def results_text(results: list[Result], style: box.Box) -> str:
    """For each batch size a table with its summary, and the sizes of files."""
    parts: list[Table | str] = []
    for batch in dict.fromkeys(r.batch for r in results):
        of_batch = [r for r in results if r.batch == batch]
        notes = summary(of_batch)
        notes += [f"{r.model}, {PEERS[r.peer].title} fails: {r.error}" for r in of_batch if r.error]
        parts += ["", f"## Batch {batch}", "", results_table(of_batch, style), "", *bullets(notes)]
    sizes = {r.model: f"{r.octavo_file_mb:.1f} MB" for r in results if r.octavo_file_mb}
    if sizes:
        parts += ["", f"Octavo's files: {as_line(sizes)}"]
    return as_text(*parts)
