"""Indices outside of the tensor they read from, which PyTorch refuses and OpenVINO does not.

A compiled model has one output more, which tells for each operator that reads by index whether all
its indices are inside: ids of words that the call gives, positions that the network computes.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import openvino.opset15 as ov
import torch
from openvino import Output

from .shapes import size_of
from .values import cast, rank, scalar

aten = torch.ops.aten


def inside(target: Any, args: Sequence[Any]) -> Iterator[Output]:
    """For each tensor of indices that an operator reads by: whether all are inside, a scalar."""
    if target is aten.embedding:
        yield from _inside(args[0], 0, args[1], 0)
    elif target in (aten.index_select, aten.gather):
        yield from _inside(args[0], args[1], args[2], 0)
    elif target is aten.index:
        for dim, index in enumerate(args[1]):
            if index is not None:
                yield from _inside(args[0], dim, index, -1)


def _inside(x: Output, dim: int, index: Output, least: int) -> Iterator[Output]:
    """least: 0, or -1 if indices may count from the end. Constants are known to be inside."""
    if index.get_node().get_type_name() == "Constant":
        return
    size, index = scalar(size_of(x, dim)), cast(index, torch.int64)
    low = ov.multiply(size, scalar(least))
    each = ov.logical_and(ov.greater_equal(index, low), ov.less(index, size))
    dims = np.arange(rank(index), dtype=np.int64)
    yield ov.reduce_logical_and(each, dims, False).output(0)


def all_guards(guards: Sequence[Output]) -> Any:
    """Scalars as one vector."""
    return ov.concat([ov.reshape(g, [1], False).output(0) for g in guards], 0)
