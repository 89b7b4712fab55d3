"""Latency over many architectures: Octavo's int8 model beside NNCF's, both in OpenVINO.

    pip install -e .[bench]
    python -m benchmarks.sweep.latency --markdown docs/measured/sweep.md
    python -m benchmarks.sweep.latency '*densenet*' --batch 1 8

Architectures of `architectures.py` that take one image, with random weights; both get the same 8
images, with Octavo's default and NNCF's. Calls of the two alternate; the ratio is of the medians.
"""

from __future__ import annotations

import fnmatch
import statistics
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

from ..command_line import add_json, add_markdown, make_parser
from ..measuring import attempt, time_alternately
from ..output import machine, make_table, number, print_tables, write_json
from ..peers.frameworks import (
    compile_octavo,
    compile_openvino,
    quantize_nncf,
    quantize_octavo,
    warm_up,
)

SLOWER = 1.03  # more than this is listed by itself
COLUMNS = ["architecture", "batch", "Octavo ms", "NNCF ms", "ratio"]


@dataclass
class Result:
    """Median milliseconds of both; an error where one of them failed."""

    name: str
    batch: int
    octavo: float | None = None
    nncf: float | None = None
    error: str = ""

    @property
    def ratio(self) -> float | None:
        return self.octavo / self.nncf if self.octavo and self.nncf else None


@torch.no_grad()
def measure(name: str, batches: list[int]) -> Iterator[Result]:
    from .architectures import ARCHITECTURES, settle

    case = ARCHITECTURES[name]
    torch.manual_seed(0)
    model: nn.Module = settle(case.build(), case.inputs)
    data: list[Tensor] = [case.inputs(4, seed)[0][0] for seed in (10, 11)]
    ours, theirs = (attempt(q, model, data) for q in (quantize_octavo, quantize_nncf))
    for batch in batches:
        result = Result(name, batch, error=ours.error or theirs.error)
        x = case.inputs(batch, 20)[0][0]
        timed = attempt(both, ours.value, theirs.value, x) if not result.error else None
        if timed is not None:
            result.error = timed.error
        if timed is not None and timed.value:
            result.octavo, result.nncf = timed.value
        yield result


def both(ours: Any, theirs: Any, x: Tensor) -> list[float]:
    calls = {"octavo": compile_octavo(ours, x), "nncf": compile_openvino(theirs, x)}
    return [statistics.median(times) for times in time_alternately(calls, 15, 10).values()]


def of_one_image() -> list[str]:
    from . import architectures as known

    sources = {"torchvision": known.TORCHVISION, "timm": known.TIMM}
    return [
        f"{source}:{name}"
        for source, by_size in sources.items()
        for names in by_size.values()
        for name in names.split()
    ]


def table(results: list[Result]) -> Table:
    made = make_table(COLUMNS, texts=(0,))
    for r in sorted(results, key=lambda r: -(r.ratio or 0.0)):
        figures = number(r.octavo, 3), number(r.nncf, 3), number(r.ratio, 2)
        made.add_row(r.name, str(r.batch), *(figures if not r.error else (r.error[:40], "", "")))
    return made


def summary(results: list[Result]) -> str:
    ratios = {(r.name, r.batch): r.ratio for r in results if r.ratio}
    if not ratios:
        return ""
    slower = [f"{n} ({v:.2f})" for (n, _), v in ratios.items() if v > SLOWER]
    return (
        f"{len(ratios)} measured: geometric mean {statistics.geometric_mean(ratios.values()):.3f}; "
        f"slower than NNCF's by more than 3 %: {', '.join(slower) or 'none'}"
    )


def main() -> None:
    parser = make_parser("benchmarks.sweep.latency", __doc__)
    parser.add_argument("patterns", nargs="*", default=["*"], help="names, with * and ?")
    parser.add_argument("--batch", nargs="+", type=int, default=[1])
    add_json(parser)
    add_markdown(parser)
    options = parser.parse_args()
    warm_up(["octavo", "nncf"])
    results: list[Result] = []
    console = Console(stderr=True)
    for name in of_one_image():
        if any(fnmatch.fnmatch(name, p) for p in options.patterns):
            for result in measure(name, options.batch):
                results.append(result)
                console.print(name, result.batch, number(result.ratio, 2), result.error)
    print_tables([table(results), "", summary(results)], options.markdown)
    write_json(options.json, machine(), results)


if __name__ == "__main__":
    main()
