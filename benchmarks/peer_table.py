"""What `peers.py` measured, as tables with a summary, in text or markdown."""

from __future__ import annotations

import contextlib
import importlib.metadata
import io
import platform
import statistics
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

from peer_tools import PEERS, THREADS
from rich import box
from rich.console import Console
from rich.table import Table

import octavo

COLUMNS = ["model", "peer", "median ms", "min ms", "Octavo / peer"]
COLUMNS += ["ready s", "ready ratio", "SQNR dB"]
PACKAGES = ["torch", "torchvision", "transformers", "openvino", "nncf", "onnxruntime", "torchao"]
INT8_PEERS = [n for n, peer in PEERS.items() if peer.int8 and not peer.title.startswith("Octavo")]


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


def tell(tables: Iterable[Table], file: Path | None, width: int = 160) -> None:
    """Print the machine and tables, and write them to a file if there is one."""
    console = Console(file=io.StringIO(), width=width)
    for made in tables:
        console.print(made)
    text = f"{as_line(machine())}\n{console.file.getvalue()}"
    print(text)
    if file:
        file.write_text(text)


def table(results: list[Result], style: box.Box) -> Table:
    """Results of one batch size; both ratios are below 1 where Octavo is faster."""
    made = Table(box=style, show_edge=style is box.MARKDOWN)
    for i, column in enumerate(COLUMNS):
        made.add_column(column, justify="left" if i < 2 else "right", no_wrap=True)
    slower, later = (octavo_by_peer(results, value) for value in ("median_ms", "ready_s"))
    for r in results:
        ratios = slower.get((r.model, r.peer)), later.get((r.model, r.peer))
        cells = [figure(v, 2) for v in (r.median_ms, r.min_ms, ratios[0])]
        cells += [figure(r.ready_s, 1), figure(ratios[1], 2), figure(r.sqnr_db, 1)]
        made.add_row(r.model, PEERS[r.peer].title, *(["fails"] if r.error else cells))
    return made


def figure(value: float | None, digits: int) -> str:
    return "" if value is None else f"{value:.{digits}f}"


def octavo_by_peer(results: list[Result], value: str) -> dict[tuple[str, str], float]:
    """Octavo's `value` by the peer's, for each model and peer where both have one."""
    return by_peer(results, value, "octavo")


def by_peer(results: list[Result], value: str, of: str) -> dict[tuple[str, str], float]:
    """One peer's `value` by each other's."""
    known = {(r.model, r.peer): v for r in results if (v := getattr(r, value)) is not None}
    ours = {model: v for (model, peer), v in known.items() if peer == of}
    return {key: ours[key[0]] / v for key, v in known.items() if key[0] in ours}


def summary(results: list[Result]) -> list[str]:
    """Over the models of one batch size: Octavo beside the best int8 peer, NNCF and float."""
    slower, later = (octavo_by_peer(results, value) for value in ("median_ms", "ready_s"))
    faster = by_peer(results, "ready_s", "fast")
    speedups = {model: 1 / ratio for model, ratio in worst(slower, ["eager"]).items()}
    lines = [
        over_models("Octavo's median / fastest other int8 peer's", worst(slower, INT8_PEERS), max),
        over_models("Octavo's ready / NNCF's", worst(later, ["nncf"]), max),
        over_models("Octavo's ready with config='fast' / NNCF's", worst(faster, ["nncf"]), max),
        over_models("Octavo's ready / with config='fast'", worst(later, ["fast"]), max),
        over_models("eager float's median / Octavo's", speedups, min),
    ]
    return [line for line in lines if line]


def worst(ratios: dict[tuple[str, str], float], peers: list[str]) -> dict[str, float]:
    """By model, the ratio to the best of `peers`, which is the largest."""
    found: dict[str, float] = {}
    for (model, peer), ratio in ratios.items():
        if peer in peers:
            found[model] = max(ratio, found.get(model, 0))
    return found


def over_models(title: str, ratios: dict[str, float], extreme: Callable[..., str]) -> str:
    """A line with the geometric mean and the least favourable of the ratios, if there are any."""
    if not ratios:
        return ""
    least = extreme(ratios, key=ratios.get)
    mean = statistics.geometric_mean(ratios.values())
    return f"{title}: geometric mean {mean:.2f}, {extreme.__name__} {ratios[least]:.2f} ({least})"


def as_text(facts: dict[str, str], results: list[Result], style: box.Box, width: int) -> str:
    """The machine, for each batch size a table with what it sums up to, and Octavo's files."""
    console = Console(file=io.StringIO(), width=width)
    for batch in dict.fromkeys(r.batch for r in results):
        of_batch = [r for r in results if r.batch == batch]
        console.print(f"\nBatch {batch}\n")
        console.print(table(of_batch, style))
        notes = summary(of_batch)
        notes += [f"{r.model}, {PEERS[r.peer].title} fails: {r.error}" for r in of_batch if r.error]
        console.print("", *(f"- {note}" for note in notes), sep="\n", markup=False, soft_wrap=True)
    sizes = {r.model: f"{r.octavo_file_mb:.1f} MB" for r in results if r.octavo_file_mb}
    lines = [as_line(facts), *console.file.getvalue().splitlines()]
    lines += ["", f"Octavo's files: {as_line(sizes)}"] if sizes else []
    text = "\n".join(line.rstrip() for line in lines)
    return text.replace("\n\n\n", "\n\n") + "\n"
