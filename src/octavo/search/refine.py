"""Refine: ranges of activations by the noise that they make at the output, not at the value.

An observer weighs all errors of a value alike. But an error e reaches the output as J e, J being
the Jacobian: for random r with independent elements, the mean of (r . J e)**2 is its energy there,
and one backward pass yields the gradient g = J^T r for all values. So the ends of each range are
moved over a grid, to where the least noise arrives. Half of what is minimized is the mean of
(g . e)**2, which knows that the errors of clipping are alike and add up; the other half is that
of the sum of g**2 e**2, which takes them as independent and varies less from sample to sample (the
squared gradients that BRECQ, arXiv 2102.05426, weighs errors with).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence

import torch
from torch import Tensor, fx

from ..calibrate.ranges import Ranges
from ..calibrate.samples import Inputs, Samples
from ..convert import Emission
from ..convert.choose import bounded
from ..convert.emit import emit
from ..graph.qparams import QParams, choose_qparams
from .sensitivity import Run, rounded, rounded_values, rounding_noise

Range = tuple[float, float]
FACTORS = (0.5, 0.6, 0.7, 0.8, 0.88, 0.94, 1.07, 1.15, 1.3, 1.6, 2.0)  # of an end of a range
PROBES = 4  # random r for each sample
PIECE = 4  # samples run at a time
SAMPLES = 128  # that are enough
RANKED_BY = 4  # samples, to find the values that matter
MATTERS = 0.98  # of the noise: values that make so much together are refined
WORTH_IT = 0.98  # of the noise of a value: less gain is chance
ALONE, TOGETHER = 0.5, 0.5  # weights of errors as independent, and as they add up


def refined(
    emission: Emission, ranges: Ranges, samples: Samples, in_time: Callable[[], bool]
) -> Emission:
    """The graph with ranges that make less noise at the output, by the samples to tune with.

    in_time: asked before each further batch; the ranges are chosen by those seen so far.
    """
    random = torch.Generator().manual_seed(0)
    pieces = [*samples.pieces(PIECE, SAMPLES)]
    groups = _that_matter(emission, samples)
    for move in (_moves_of_both_ends, _moves_of_one_end):
        grids = {n: _grid(emission, ranges, n, [*move(emission.qparams[n])]) for n in groups}
        noise = _Noise(emission, groups, {n: grid for n, grid in grids.items() if len(grid) > 1})
        for i, inputs in enumerate(pieces):
            if i and not in_time():
                break
            noise.add(inputs, random)
        emission = _with_ranges(emission, noise.best())
    return emission


def _that_matter(emission: Emission, samples: Samples) -> dict[fx.Node, list[fx.Node]]:
    """Groups of values with one scale that make most of the noise -> their rounded values."""
    sites = emission.sites
    of_values, _, _ = rounding_noise(emission, samples.subset(RANKED_BY).tuning, PROBES)
    groups: dict[fx.Node, list[fx.Node]] = {}
    for value in rounded_values(emission):
        name = sites.demand.group_of(value)
        if name not in sites.demand.hints and name in emission.qparams:
            groups.setdefault(name, []).append(value)
    by_noise = sorted(groups, key=lambda name: -sum(of_values[v] for v in groups[name]))
    left, kept = MATTERS * of_values.total(), {}
    for name in by_noise:
        if left <= 0:
            break
        kept[name] = groups[name]
        left -= sum(of_values[v] for v in groups[name])
    return kept


def with_ranges_of(emission: Emission, other: Emission) -> Emission:
    """The graph with the ranges that another has of the same groups of values."""
    known = {n.name: p for n, p in other.qparams.items()}
    chosen = {}
    for name, members in emission.sites.groups.items():
        theirs = [known[m.name] for m in members if m.name in known]
        own = emission.qparams.get(name)
        same = theirs and own and all(p is theirs[0] for p in theirs)
        if same and theirs[0].spec == own.spec:  # type: ignore[union-attr]
            chosen[name] = theirs[0]
    return _with_ranges(emission, chosen)


# ---- what is tried


def _moves_of_both_ends(qparams: QParams) -> Iterator[Range]:
    low, high = qparams.range
    yield from ((low * f, high * f) for f in FACTORS)


def _moves_of_one_end(qparams: QParams) -> Iterator[Range]:
    low, high = qparams.range
    if low < 0 < high and not qparams.spec.symmetric:
        yield from ((low, high * f) for f in FACTORS)
        yield from ((low * f, high) for f in FACTORS)


def _grid(
    emission: Emission, ranges: Ranges, name: fx.Node, moves: Sequence[Range]
) -> list[QParams]:
    """The scale of a group and those to try instead, which reach no further than its values."""
    chosen = emission.qparams[name]
    least, most = ranges.extremes(emission.sites.groups[name])
    found = [chosen]
    for low, high in moves:
        low, high = bounded(emission.sites, name, (max(low, min(least, 0.0)), min(high, most)))
        if low < high and math.isfinite(high - low):
            found.append(choose_qparams(low, high, chosen.spec))
    return found


class _Noise:
    """The noise at the output for each scale that is tried, of each group that has a grid."""

    def __init__(
        self,
        emission: Emission,
        groups: Mapping[fx.Node, Sequence[fx.Node]],
        grids: Mapping[fx.Node, Sequence[QParams]],
    ) -> None:
        self.emission, self.groups, self.grids = emission, groups, grids
        self.found = {n: torch.zeros(len(grid), dtype=torch.float64) for n, grid in grids.items()}

    def add(self, inputs: Inputs, random: torch.Generator) -> None:
        """Add that of one batch."""
        values = {v for name in self.grids for v in self.groups[name]}
        run = Run(self.emission, values, inputs, weights=False)
        seen = list(run.values)
        tensors = [run.values[v][0] for v in seen]
        probes = [run.gradients(tensors, random) for _ in range(PROBES)]
        gradients = {v: [g[i] for g in probes if g[i] is not None] for i, v in enumerate(seen)}
        with torch.no_grad():
            for name, grid in self.grids.items():
                for v in self.groups[name]:
                    if gradients.get(v):
                        g = torch.stack(gradients[v])  # type: ignore[arg-type]
                        self.found[name] += self._of_value(run.values[v][0], g, grid)

    def _of_value(self, x: Tensor, gradients: Tensor, grid: Sequence[QParams]) -> Tensor:
        samples = len(x) if x.dim() else 1
        g = gradients.reshape(len(gradients), samples, -1)
        squares = g.square().sum(0)
        noise = []
        for qparams in grid:
            e = (rounded(x, qparams) - x).reshape(samples, -1)
            together = (g * e).sum(-1).square().sum()
            noise.append(TOGETHER * together + ALONE * (squares * e.square()).sum())
        return torch.stack(noise).double().cpu()

    def best(self) -> dict[fx.Node, QParams]:
        """The scale of each group that another than the first is better for."""
        return {
            name: self.grids[name][int(noise.argmin())]
            for name, noise in self.found.items()
            if noise.min() < WORTH_IT * noise[0]
        }


def _with_ranges(emission: Emission, chosen: Mapping[fx.Node, QParams]) -> Emission:
    """The graph with other scales for some groups."""
    group_of = emission.sites.demand.group_of
    qparams = {n: chosen.get(group_of(n), p) for n, p in emission.qparams.items()}
    return emit(emission.sites, qparams, emission.weights)
