"""Which operators lose accuracy, and what it costs to keep the worst of them float."""

from __future__ import annotations

import dataclasses
import itertools
import math
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from rich.console import Group
from rich.table import Table
from torch import Tensor, fx, nn

from .calibrate.data import calls
from .calibrate.mistakes import check_model
from .calibrate.ranges import Ranges
from .config import Config, as_config
from .engines.base import compile_graph
from .graph.names import module_path, operator_name
from .metrics import decibels
from .page import page, write_page
from .page.curves import curve_of
from .printed import Printed
from .progress import number_of_calls, tracked, working
from .quantize import attempt_of, observe, prepare
from .search.fallback import most_sensitive_first
from .search.latency import median_milliseconds
from .search.sensitivity import site_sensitivity
from .sites.sites import Sites

ROUNDS = 30  # timed calls of each point
SHOWN = 20  # sites in the table


@dataclass(frozen=True)
class SiteDamage:
    """One operator: its share of the noise at the outputs, an estimate, 0 to 1.

    site: its number in the report, for `Config.keep_float`.
    """

    site: int
    path: str
    operator: str
    share: float
    multiply_adds: int


@dataclass(frozen=True)
class Point:
    """The model with so many of the worst sites in float.

    sqnr: of the outputs on calibration data, in dB. milliseconds: of a call with one sample in
    OpenVINO, median; None where it was not timed.
    """

    floats: int
    sqnr: float
    milliseconds: float | None


@dataclass(frozen=True)
class Sensitivity(Printed):
    """`sites`, those first that are best kept float, and the `curve`; `print` shows both.

    That order is by noise for each multiply-add, as `target_sqnr` turns them float.
    """

    sites: tuple[SiteDamage, ...]
    curve: tuple[Point, ...]

    def html(self, path: str | os.PathLike[str]) -> None:
        """Write all of it as one page that needs no network, the curve plotted.

        Raises FormatError where the folder is missing.
        """
        first, last = self.curve[0], self.curve[-1]
        facts = {"all in int8": f"{decibels(first.sqnr)} dB", "operators": str(len(self.sites))}
        curves = [
            curve_of("SQNR in dB by the number in float", self._points("sqnr"), "dB"),
            curve_of("Milliseconds by the number in float", self._points("milliseconds"), "ms"),
        ]
        if first.milliseconds is not None and last.milliseconds is not None:
            facts["latency, int8 → float"] = (
                f"{first.milliseconds:.3f} → {last.milliseconds:.3f} ms"
            )
        most = max((s.share for s in self.sites), default=0.0)
        shown = [curve for curve in curves if curve.points]
        title = "Octavo sensitivity"
        write_page(page("sensitivity", title, facts, found=self, curves=shown, most=most), path)

    def _points(self, name: str) -> list[tuple[str, float]]:
        values = [(str(p.floats), getattr(p, name)) for p in self.curve]
        return [(label, math.nan if value is None else value) for label, value in values]

    def __rich__(self) -> Group:
        """The tables for rich."""
        title = "best kept float first: by their share of the noise for each multiply-add"
        sites = Table(title=title, title_justify="left")
        sites.add_column("#", justify="right")
        for column in ("module", "operator"):
            sites.add_column(column, overflow="fold")
        for column in ("share", "multiply-adds"):
            sites.add_column(column, justify="right")
        for s in self.sites[:SHOWN]:
            sites.add_row(str(s.site), s.path, s.operator, f"{s.share:.1%}", f"{s.multiply_adds:,}")
        curve = Table(title="with so many of them float", title_justify="left")
        for column in ("float", "SQNR dB", "ms"):
            curve.add_column(column, justify="right")
        for p in self.curve:
            ms = "" if p.milliseconds is None else f"{p.milliseconds:.3f}"
            curve.add_row(str(p.floats), decibels(p.sqnr), ms)
        return Group(sites, curve)


@torch.no_grad()
def sensitivity(
    model: nn.Module,
    data: Any,
    config: Config | str | None = None,
    *,
    timed: bool = True,
    progress: bool = True,
) -> Sensitivity:
    """Quantize, order the operators by the noise that each adds, and keep more and more float.

    >>> import octavo
    >>> net = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 4)).eval()
    >>> found = octavo.sensitivity(net, torch.randn(64, 8), timed=False)
    >>> [p.floats for p in found.curve]
    [0, 1, 2]

    model, data, config, progress: as for `quantize`. timed: compile each point with OpenVINO and
        time it on this machine.

    Each point of the curve (0, 1, 2, 4, 8, ... sites in float) is converted and tuned anew. Raises
    as `quantize` does.
    """
    check_model(model)
    config = dataclasses.replace(as_config(config), min_sqnr=0, target_sqnr=0)
    batches = calls(data, model)
    with working("capturing", progress):
        prepared = prepare(model, batches, config)
    every = itertools.chain(prepared.taken, batches)
    ranges = observe(prepared, tracked(every, "calibrating", number_of_calls(data), progress))
    attempt = attempt_of(prepared, ranges)
    whole = attempt(prepared.sites)
    noise = site_sensitivity(whole.emission, prepared.samples.tuning)
    order = most_sensitive_first(whole.emission, noise, ranges.macs)
    inputs = prepared.samples.subset(1).measuring[0]
    assert prepared.graph.signature is not None  # captured by torch.export
    compile = partial(compile_graph, signature=prepared.graph.signature)
    points = []
    counts = [*_counts(len(order))]
    for count in tracked(counts, "converting and timing", len(counts), progress):
        tuned = whole if not count else attempt(_with_float(prepared.sites, order[:count]))
        module = tuned.emission.module
        ms = _milliseconds(compile(module), inputs) if timed else None
        points.append(Point(count, tuned.output.sqnr, ms))
    total = sum(noise.values()) or 1.0
    sites = (_damage(prepared.sites, site, noise[site] / total, ranges) for site in order)
    return Sensitivity(tuple(sites), tuple(points))


def _with_float(sites: Sites, roots: Sequence[fx.Node]) -> Sites:
    return sites.with_float(dict.fromkeys(roots, "for the curve of sensitivity"))


def _counts(most: int) -> Iterator[int]:
    """0, 1, 2, 4, 8, ... and all."""
    yield 0
    count = 1
    while count < most:
        yield count
        count *= 2
    if most:
        yield most


def _damage(sites: Sites, root: fx.Node, share: float, ranges: Ranges) -> SiteDamage:
    nodes = sites.rules[root].nodes
    return SiteDamage(
        sites[root].number,
        module_path(nodes[0]) or root.name,
        " + ".join(map(operator_name, nodes)),
        share,
        sum(ranges.macs.get(n, 0) for n in nodes),
    )


def _milliseconds(compiled: Any, inputs: Sequence[Tensor]) -> float:
    compiled.run(inputs)
    (milliseconds,) = median_milliseconds([partial(compiled.run, inputs)], ROUNDS)
    return milliseconds
