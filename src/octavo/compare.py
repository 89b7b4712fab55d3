"""Two models side by side: float and quantized, or two quantized ones, on the same data."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from rich.table import Table
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from .calibrate.data import batch_size, calls
from .capture.images import alike
from .capture.signature import Call
from .engines.base import EngineModel
from .errors import DataError
from .graph.tensors import tensor_bytes
from .metrics import UNLIKE, Noise, decibels
from .model import QuantizedModel
from .page import page, write_page
from .printed import Printed
from .progress import tracked
from .search.latency import median_milliseconds


@dataclass(frozen=True)
class SitePair:
    """One operator in both models: precision, and SQNR in dB on calibration data (inf in float)."""

    path: str
    operator: str
    precision: tuple[str, str]
    sqnr: tuple[float, float]


@dataclass(frozen=True)
class Comparison(Printed):
    """What `compare` found; `print` shows it as a table.

    sqnr: in dB, of the outputs of the second against those of the first, the worst of several.
    agreement: share of samples with the same largest output, 0 to 1; None where outputs have no
        classes.
    samples: how many were compared.
    milliseconds: of a call with the first batch, median, of both; called in turns.
    batch: samples in that call.
    megabytes: of the tensors of both.
    sites: operators by how much their SQNR on their model's calibration data differs, most first.
    """

    sqnr: float
    agreement: float | None
    samples: int
    milliseconds: tuple[float, float]
    megabytes: tuple[float, float]
    batch: int
    sites: tuple[SitePair, ...] = ()

    def html(self, path: str | os.PathLike[str]) -> None:
        """Write all of it as one page that needs no network.

        Raises FormatError where the folder is missing.
        """
        (a, b), (small, large) = self.milliseconds, self.megabytes
        facts = {"samples": str(self.samples), "SQNR": f"{decibels(self.sqnr)} dB"}
        if self.agreement is not None:
            facts["same answer"] = f"{self.agreement:.2%}"
        facts |= {
            f"latency, batch {self.batch}": f"{a:.3f} → {b:.3f} ms",
            "size": f"{small:.2f} → {large:.2f} MB",
        }
        write_page(page("compare", "Octavo comparison", facts, found=self), path)

    def __rich__(self) -> Table:
        """The table for rich."""
        same = "" if self.agreement is None else f", same answer {self.agreement:.2%}"
        ms, mb = self.milliseconds, self.megabytes
        table = Table(
            title=f"{self.samples} samples: SQNR {decibels(self.sqnr)} dB{same}; "
            f"{ms[0]:.3f} -> {ms[1]:.3f} ms, {mb[0]:.2f} -> {mb[1]:.2f} MB",
            title_justify="left",
        )
        for column in ("module", "operator"):
            table.add_column(column, overflow="fold")
        for column in ("first", "calibration dB", "second", "calibration dB"):
            table.add_column(column, justify="right" if "dB" in column else "left")
        for s in self.sites[:MOST_SITES]:
            columns = zip(s.precision, map(decibels, s.sqnr), strict=True)
            table.add_row(s.path, s.operator, *(text for pair in columns for text in pair))
        notes = [f"latency: of a call with {self.batch} samples, median of calls in turns"]
        if len(self.sites) > MOST_SITES:
            notes.insert(0, f"and {len(self.sites) - MOST_SITES} that differ less")
        if self.sqnr < UNLIKE:
            notes.append(
                "so little in common: do both have the same weights, and data as they take?"
            )
        table.caption, table.caption_justify = "\n".join(notes), "left"
        return table


MOST_SITES = 20  # in the table


@torch.no_grad()
def compare(
    first: Callable[..., Any],
    second: Callable[..., Any],
    data: Any,
    *,
    rounds: int = 30,
    threads: int | None = None,
    progress: bool = True,
) -> Comparison:
    """Compare two models on data that neither was calibrated on.

    >>> import octavo
    >>> net = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 4)).eval()
    >>> q = octavo.quantize(net, torch.randn(64, 8))
    >>> found = octavo.compare(net, q, torch.randn(32, 8))
    >>> found.samples, found.agreement > 0.5
    (32, True)

    first, second: float modules, quantized models (which run compiled by OpenVINO) or compiled
        ones, all called alike.
    data: as for `quantize`; where a quantized model takes images as bytes, a float one does here.
    rounds: timed calls of each. threads: of the processor; by default all that PyTorch uses.
    progress: show on a terminal how far it is.

    Raises DataError where their outputs have different shapes.
    """
    first, second = alike(first, second), alike(second, first)
    known = [m for m in (first, second) if isinstance(m, nn.Module | EngineModel)]
    batches = [*calls(data, known[0] if known else nn.Identity())]
    threads = threads or torch.get_num_threads()
    runs = [_runnable(m, threads) for m in (first, second)]
    noises: list[Noise] = []
    same = asked = samples = 0
    for args, kwargs in tracked(batches, "comparing", len(batches), progress):
        a, b = (_floats(run(*args, **kwargs)) for run in runs)
        if [t.shape for t in a] != [t.shape for t in b]:
            raise DataError(
                f"the outputs have shapes {_shapes(a)} and {_shapes(b)}: not comparable"
            )
        noises += [Noise() for _ in a[len(noises) :]]
        for noise, x, y in zip(noises, a, b, strict=True):
            noise.add(x, y)
        samples += batch_size((args, kwargs))
        if a and a[0].dim() > 1 and a[0].shape[-1] > 1:
            equal = a[0].argmax(-1) == b[0].argmax(-1)
            same, asked = same + int(equal.sum()), asked + equal.numel()
    return Comparison(
        min((n.sqnr for n in noises), default=math.inf),
        same / asked if asked else None,
        samples,
        _times(runs, batches[0], rounds),
        (_megabytes(first), _megabytes(second)),
        batch_size(batches[0]),
        _sites(first, second),
    )


def _runnable(model: Callable[..., Any], threads: int) -> Callable[..., Any]:
    return model.compile(threads=threads) if isinstance(model, QuantizedModel) else model


def _floats(output: Any) -> list[Tensor]:
    found = [torch.as_tensor(leaf) for leaf in tree_leaves(output) if hasattr(leaf, "shape")]
    return [t.clone() for t in found if t.is_floating_point()]


def _shapes(tensors: Sequence[Tensor]) -> str:
    return ", ".join(str(tuple(t.shape)) for t in tensors)


def _times(runs: Sequence[Callable[..., Any]], call: Call, rounds: int) -> tuple[float, float]:
    """Median milliseconds of each, called in turns."""
    args, kwargs = call
    timed = [partial(run, *args, **kwargs) for run in runs]
    first, second = median_milliseconds(timed, max(rounds, 1))
    return first, second


def _megabytes(model: Any) -> float:
    return tensor_bytes(model) / 1e6 if isinstance(model, nn.Module) else math.nan


def _sites(first: Any, second: Any) -> tuple[SitePair, ...]:
    """The rows of both reports, by name; a float model is exact everywhere."""
    rows = [
        {r.name: r for r in m.report().rows} if isinstance(m, QuantizedModel) else {}
        for m in (first, second)
    ]
    found = []
    for name in dict.fromkeys([*rows[0], *rows[1]]):
        pair = [r.get(name) for r in rows]
        known = next(r for r in pair if r is not None)
        values = [math.inf if r is None or r.sqnr is None else r.sqnr for r in pair]
        kinds = ["float" if r is None else r.precision for r in pair]
        label = known.path or name
        found.append(SitePair(label, known.operator, (kinds[0], kinds[1]), (values[0], values[1])))
    return tuple(sorted(found, key=_difference, reverse=True))


def _difference(pair: SitePair) -> float:
    """How much more noise one has, as a ratio to the signal."""
    a, b = (10 ** (-v / 10) for v in pair.sqnr)
    return abs(a - b)
