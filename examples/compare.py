"""What both parts of the demo measure: float eager PyTorch against compiled int8."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.progress import track
from rich.table import Table
from torch import Tensor

import octavo

Net = Callable[[Tensor], Tensor]

console = Console()

TURNS, CALLS = 30, 10

# One thread each: where another program is at work, the threads of eager PyTorch wait for each
# other, which made it up to 400 times slower, and the comparison worthless.
THREADS = 1
torch.set_num_threads(THREADS)


@dataclass(frozen=True)
class Speed:
    """Median milliseconds of a call."""

    float_ms: float
    int8_ms: float

    def cells(self) -> tuple[str, str]:
        ratio = self.float_ms / self.int8_ms
        return f"{self.float_ms:.2f} -> {self.int8_ms:.2f}", f"{ratio:.1f}x"


def quantize(net: torch.nn.Module, images: Tensor, batch: int) -> tuple[octavo.QuantizedModel, Net]:
    """The int8 model and the same compiled; prints how long that took."""
    start = time.perf_counter()
    q = octavo.quantize(net, images.split(batch))
    int8_net = q.compile(threads=THREADS)
    int8_net(images[:1])  # OpenVINO compiles for a shape when it first sees it
    console.print(
        f"  calibrated on {len(images)} images, quantized and compiled "
        f"in {time.perf_counter() - start:.1f} s"
    )
    return q, int8_net


@torch.no_grad()
def outputs(net: Net, images: Tensor, batch: int, doing: str) -> Tensor:
    """The net's outputs for all images."""
    return torch.cat([net(x) for x in with_bar(images.split(batch), doing)])


def with_bar(items: Iterable[Any], doing: str) -> Iterable[Any]:
    """The items, with a bar that shows how far they are, on a terminal."""
    hidden = not console.is_terminal
    return track(items, f"  {doing}", console=console, transient=True, disable=hidden)


def agreement(a: Tensor, b: Tensor) -> float:
    """The share of rows with the same largest entry."""
    return (a.argmax(1) == b.argmax(1)).float().mean().item()


@torch.no_grad()
def speed(float_net: Net, int8_net: Net, image: Tensor) -> Speed:
    """Time both on one image, in turns, so that a busy moment of the machine hits both."""
    times: tuple[list[float], list[float]] = ([], [])
    for _ in with_bar(range(TURNS), "timing"):
        for net, kept in zip((float_net, int8_net), times, strict=True):
            # the first calls of a turn find the caches full of the other net
            kept += [milliseconds(net, image) for _ in range(3 + CALLS)][3:]
    return Speed(*map(statistics.median, times))


def milliseconds(net: Net, image: Tensor) -> float:
    start = time.perf_counter()
    net(image)
    return 1e3 * (time.perf_counter() - start)


def size(q: octavo.QuantizedModel) -> str:
    """MB of all tensors before and after."""
    report = q.report()
    return f"{report.bytes_before / 1e6:.2f} -> {report.bytes_after / 1e6:.2f}"


def make_table(title: str, *columns: str) -> Table:
    """A table of figures, narrow enough for 80 columns; its first column is text."""
    table = Table(title=title, box=SIMPLE_HEAD, title_justify="left", title_style="bold")
    table.pad_edge, table.collapse_padding = False, True
    for i, column in enumerate(columns):
        table.add_column(column, justify="right" if i else "left", no_wrap=True)
    return table


def print_notes(*notes: str) -> None:
    """What the columns mean, under a table."""
    how = "ms: one image a call, one thread, median; float is eager PyTorch"
    for note in (*notes, how):
        console.print(note, style="dim", highlight=False)
