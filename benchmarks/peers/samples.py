"""Time and memory of quantizing by number of calibration images, for the option `--samples`."""

from __future__ import annotations

import contextlib
import io
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import matplotlib
from matplotlib.figure import Figure

from ..measuring import in_fresh_process, peak_memory
from ..random_models import Samples, random_model
from .frameworks import PEERS, warm_up

MODEL, COUNTS = "resnet50", (16, 64, 256, 1024)


@dataclass
class Cost:
    """Of quantizing once: `seconds` without the making of images, `peak_mb` of the process."""

    peer: str
    images: int
    seconds: float
    peak_mb: float


def cost(peer: str, count: int) -> Cost:
    """Measured in this process, which must have done nothing else before."""
    warm_up([peer])
    model, data = random_model(MODEL), Samples(MODEL, count)
    start = time.perf_counter()
    with contextlib.redirect_stdout(io.StringIO()):
        PEERS[peer].prepare(model, data)
    seconds = time.perf_counter() - start - data.seconds
    return Cost(peer, count, seconds, peak_memory())


def compare(peers: Iterable[str], counts: Iterable[int] = COUNTS) -> list[Cost]:
    """The cost of each peer with each number of images, each in a process of its own."""
    costs = []
    for peer in peers:
        for count in counts:
            costs.append(c := in_fresh_process(cost, peer, count))
            print(f"{PEERS[peer].title}, {MODEL}, {count:,} images: ", end="")
            print(f"{c.seconds:.1f} s, peak {c.peak_mb:,.0f} MB", flush=True)
    return costs


def plot(costs: list[Cost], file: Path) -> None:
    """Seconds and peak memory by number of images, a line for each peer."""
    figure = Figure(figsize=(8, 3), layout="constrained")
    panels = {"seconds": "time to quantize, s", "peak_mb": "peak memory, MB"}
    for axes, (value, label) in zip(figure.subplots(1, 2), panels.items(), strict=True):
        for peer in dict.fromkeys(c.peer for c in costs):
            points = [(c.images, getattr(c, value)) for c in costs if c.peer == peer]
            axes.plot(*zip(*points, strict=True), marker="o", label=PEERS[peer].title)
        axes.set(xlabel="calibration images", ylabel=label, ylim=(0, None))
    axes.legend()
    with matplotlib.rc_context({"svg.fonttype": "none"}):  # letters as text, not as outlines
        figure.savefig(file)
