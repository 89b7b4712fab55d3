"""What a report shows of a site beyond its row: where noise comes from, and how values spread."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx

from .calibrate.observers import Histogram
from .calibrate.ranges import Ranges
from .calibrate.samples import Samples
from .convert import Emission
from .graph.tensors import constant
from .metrics import FloatReference
from .search.sensitivity import site_sensitivity

SAMPLES, FEWEST = 4, 2  # that noise is measured on: a training step's memory and some passes
PROBES, MOST_PROBES = 2, 8  # of the estimate of each site's share
WORK = 4e10  # multiply-adds that the estimate may take: with more probes, it is less rough
BINS = 48  # of a histogram
MOST_CHANNELS = 256  # of which the largest weight is kept


@dataclass(frozen=True)
class Spread:
    """How a site's values spread, in calibration and in its weight.

    counts: of the output, in equal bins from `low` to `high`; empty where there is no histogram.
    weights: the largest magnitude of each output channel, of at most 256 evenly chosen ones.
    """

    counts: tuple[int, ...] = ()
    low: float = 0.0
    high: float = 0.0
    weights: tuple[float, ...] = ()


@dataclass(frozen=True)
class Details:
    """By node of the float graph.

    local: SQNR in dB of the output by the site's own rounding alone.
    shares: of the noise at the model's outputs, an estimate, 0 to 1; empty where it cannot be made.
    spreads: of sites whose output or weight is int8.
    """

    local: Mapping[fx.Node, float]
    shares: Mapping[fx.Node, float]
    spreads: Mapping[fx.Node, Spread]


def find_details(emission: Emission, samples: Samples, ranges: Ranges) -> Details:
    """Measure on a few samples, and condense what calibration has observed."""
    macs = sum(ranges.macs.values())
    few = samples.subset(SAMPLES if SAMPLES * macs <= WORK else FEWEST)
    reference = FloatReference(emission.sites.graph.module, few.measuring)
    local = reference.local(emission.module, emission.values, emission.integers)
    return Details(
        {node: noise.sqnr for node, noise in local.items() if noise.signal > 0},
        _shares(emission, few.tuning, macs),
        {root: _spread(emission, ranges, root) for root in emission.sites},
    )


def _shares(
    emission: Emission, batches: Sequence[Sequence[Tensor]], macs: int
) -> dict[fx.Node, float]:
    """macs: multiply-adds of one sample, forward; a gradient takes twice as many."""
    probes = min(max(int(WORK / max(2 * macs * SAMPLES, 1)), PROBES), MOST_PROBES)
    try:
        noise = site_sensitivity(emission, batches, probes)
    except (RuntimeError, NotImplementedError):  # an operator without gradients
        return {}
    total = sum(noise.values())
    return {site: n / total for site, n in noise.items()} if total else {}


def _spread(emission: Emission, ranges: Ranges, root: fx.Node) -> Spread:
    sites = emission.sites
    weights: tuple[float, ...] = ()
    for node, axis in sites[root].int8_weights.items():
        value = constant(sites.graph.module, node).detach().float()
        largest = value.abs().movedim(axis, 0).flatten(1).amax(1)
        chosen = largest[:: -(-len(largest) // MOST_CHANNELS)]
        weights = tuple(float(f"{v:.3g}") for v in chosen.tolist())
        break
    observer = ranges.observers.get(root)
    if not isinstance(observer, Histogram) or root not in sites.demand.specs:
        return Spread(weights=weights)
    return Spread(*_condensed(observer), weights)


def _condensed(observer: Histogram) -> tuple[tuple[int, ...], float, float]:
    """Counts in few bins, and the ends of these."""
    seen = observer.counts.nonzero().flatten()
    if not len(seen):
        return (), 0.0, 0.0
    first, last = int(seen[0]), int(seen[-1]) + 1
    each = -(-(last - first) // BINS)
    padded = torch.zeros(-(-(last - first) // each) * each, dtype=torch.int64)
    padded[: last - first] = observer.counts[first:last]
    ends = ((n - observer.half) * observer.width for n in (first, first + len(padded)))
    return (tuple(padded.view(-1, each).sum(1).tolist()), *ends)  # type: ignore[return-value]


def spread_from_dict(data: Any) -> Spread:
    """The inverse of `dataclasses.asdict`."""
    counts, weights = (tuple(data[name]) for name in ("counts", "weights"))
    return Spread(
        tuple(map(int, counts)), float(data["low"]), float(data["high"]), tuple(map(float, weights))
    )
