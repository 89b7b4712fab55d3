"""Convert: scale and zero_point from ranges, and the quantized graph from both."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from torch import fx

from ..calibrate.ranges import Ranges
from ..graph.qparams import QParams
from ..sites.sites import Sites
from .choose import choose
from .emit import Emission, emit
from .weights import QuantizedWeights

Choose = Callable[[Sites, Ranges], Mapping[fx.Node, QParams]]
Emit = Callable[[Sites, Mapping[fx.Node, QParams], QuantizedWeights], Emission]

__all__ = ["Emission", "QuantizedWeights", "choose", "convert", "emit"]


def convert(
    sites: Sites,
    ranges: Ranges,
    weights: QuantizedWeights,
    choose: Choose = choose,
    emit: Emit = emit,
) -> Emission:
    """Choose and emit; repeat with the sites whose rules declined in float, until none declines.

    So the same sites and ranges yield the same graph, and demand matches what was emitted.
    """
    emission = emit(sites, choose(sites, ranges), weights)
    while emission.declined:
        sites = sites.with_float(emission.declined)
        emission = emit(sites, choose(sites, ranges), weights)
    return emission
