"""Choose: scale and zero_point of each value, from what was observed. Pure."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import fx

from ..calibrate.ranges import Ranges
from ..graph.operators import Kind, is_operator, operator_of
from ..graph.qparams import ACTIVATION, SYMMETRIC_ACTIVATION, QParams, QSpec, choose_qparams
from ..graph.tensors import constant, is_constant, value_of
from ..sites.sites import Sites

aten = torch.ops.aten

# Steps up to this much wider are accepted for a zero_point of 0: this costs at most 0.8 dB and
# saves 4 to 10 % of a linear layer's time.
NEARLY_SYMMETRIC = 1.1


def choose(sites: Sites, ranges: Ranges) -> dict[fx.Node, QParams]:
    """scale and zero_point of every value that is read as integers; equal within a group."""
    chosen = {
        name: qparams_of_group(
            sites, name, ranges.extremes(members), partial(ranges.clipped, members)
        )
        for name, members in sites.groups.items()
    }
    named = {*sites.demand.specs, *sites.demand.hints}
    return {n: chosen[sites.demand.group_of(n)] for n in sites.graph.graph.nodes if n in named}


def qparams_of_group(
    sites: Sites,
    name: fx.Node,
    extremes: tuple[float, float],
    clipped: Callable[[QSpec], tuple[float, float]],
) -> QParams:
    """scale and zero_point of a group of values; a zero_point near the middle becomes 0.

    extremes: the smallest and largest value seen. clipped: the range to spread over the integers
    of a QSpec.
    """
    if name in sites.demand.hints:  # rounded only if an engine needs it: never clipped
        return choose_qparams(*extremes, ACTIVATION)
    spec = sites.demand.spec_of(name)
    if spec.symmetric and extremes[0] >= 0:
        spec = ACTIVATION  # whose zero_point is 0 as well, with all 256 integers in use
    qparams = choose_qparams(*bounded(sites, name, clipped(spec)), spec)
    nearly = qparams.asymmetry < NEARLY_SYMMETRIC
    if name in sites.demand.may_be_signed and not qparams.spec.symmetric and nearly:
        return choose_qparams(*clipped(SYMMETRIC_ACTIVATION), SYMMETRIC_ACTIVATION)
    return qparams


def bounded(sites: Sites, name: fx.Node, span: tuple[float, float]) -> tuple[float, float]:
    """The range that a group of values may have, next to the one wanted."""
    low, high = span
    return low, max(min(high, _clip_max(sites, name)), _least_high(sites, name))


def _least_high(sites: Sites, name: fx.Node) -> float:
    """The least number that must not be clipped: 1 of a softmax over a free length.

    Over fewer positions than calibration saw, its largest values are larger: 1 over one.
    """
    return 1.0 if any(map(_is_softmax_over_a_free_length, sites.groups[name])) else -math.inf


def _is_softmax_over_a_free_length(node: Any) -> bool:
    """Whether a value is a softmax, moved about or masked with zeros."""
    while isinstance(node, fx.Node) and node.args:
        if is_operator(node, "softmax", "_safe_softmax"):
            dimension: Any = node.args[1]
            return not isinstance(value_of(node).shape[dimension], int)
        if is_operator(node, "where"):
            return any(map(_is_softmax_over_a_free_length, node.args[1:3]))
        moved = operator_of(node).kind in (Kind.LAYOUT, Kind.REPEATING)
        if not moved and not is_operator(node, "masked_fill", "dropout", "clone"):
            return False
        node = node.args[0]
    return False


def _clip_max(sites: Sites, name: fx.Node) -> float:
    """The highest number that the integers of a value must represent.

    For an equalized clip it is the lowest bound of all channels, so that the end of the integer
    range clips every channel (see `emit`).
    """
    alone = sites.groups[name] == (name,)
    if name not in sites.roots or name.target is not aten.clamp.Tensor or not alone:
        return math.inf
    bound = name.args[2]
    return float(constant(sites.graph.module, bound).min()) if is_constant(bound) else math.inf
