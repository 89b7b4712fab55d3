"""Evenly spaced places of a value, from which a histogram is counted, with all its channels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, fx

from ..graph.operators import operator_of
from .observers import even_step

aten = torch.ops.aten

CHANNELS_FIRST = ("batch_norm", "_pool1d", "_pool2d", "_pool3d")
CHANNELS_LAST = ("linear", "layer_norm", "embedding", "softmax", "matmul")
FARTHEST = 64  # operators looked back for the one that says where channels are

Steps = Sequence[int]  # of each dimension, every how many places a value is sampled; one: of all


def steps_of(node: fx.Node, value: Tensor, counted: int) -> Steps:
    """Steps that leave about as many values as are counted, and skip no channel.

    Where it is not known what counts places, a step through all values, which takes a copy in
    PyTorch's order.
    """
    dims = _places(node, value.dim())
    if not dims:
        return (even_step(value.numel(), counted),)
    steps, left = [1] * value.dim(), value.numel() / counted
    for i, dim in enumerate(dims):
        if left > 1:
            wanted = round(left ** (1 / (len(dims) - i)))
            steps[dim] = max(1, min(wanted, value.shape[dim]))
            left /= steps[dim]
    return steps


def _places(node: fx.Node, rank: int) -> list[int]:
    """The dimensions of a value that count places (of an image, of a sequence), not channels."""
    for _ in range(FARTHEST):
        name = operator_of(node).name
        if name.startswith("conv") or name.endswith(CHANNELS_FIRST):
            return list(range(2, rank))
        if name in CHANNELS_LAST:
            return list(range(1, rank - 1))
        value = node.meta.get("val")
        same = [n for n in node.all_input_nodes if _alike(n.meta.get("val"), value, name)]
        if not same:
            break
        node = same[0]
    return []


def _alike(a: Any, b: Any, name: str) -> bool:
    """Whether an input has the dimensions of the output of this operator."""
    if not isinstance(a, Tensor) or not isinstance(b, Tensor):
        return False
    return str(a.shape) == str(b.shape) or (name == "cat" and a.dim() == b.dim())


def _is_flat(steps: Steps) -> bool:
    return len(steps) == 1 and steps[0] > 1


def sampled(value: Tensor, steps: Steps) -> list[Tensor]:
    """The middle one of as many values as a step skips: edges, with padding, count no more."""
    if not steps:
        return []
    value = value.reshape(-1) if _is_flat(steps) else value
    return [value[tuple(slice(step // 2, None, step) for step in steps)]]


def sample_nodes(graph: fx.Graph, value: fx.Node, steps: Steps) -> fx.Node:
    """The same as nodes of a graph; `steps` must not be empty."""
    if _is_flat(steps):
        value = graph.call_function(aten.reshape.default, (value, [-1]))
    for dim, step in enumerate(steps):
        if step > 1:
            places = (dim, step // 2, 2**63 - 1, step)
            value = graph.call_function(aten.slice.Tensor, (value, *places))
    return value
