"""The table's entries that put tensors together and take them apart."""

import itertools
import operator
from collections.abc import Sequence
from typing import Any

import numpy as np
import openvino.opset15 as ov
import torch
from openvino import Output

from .shapes import LAST, select, size_of, unsqueeze
from .sizes import floor_quotient
from .table import Unsupported, lowers
from .values import axis, cast, ints, length, rank, scalar, torch_type

lowers(operator.getitem)(operator.getitem)


@lowers("cat")
def _cat(tensors: Sequence[Output], dim: int = 0) -> Any:
    dtype = torch_type(tensors[0])
    for t in tensors:
        dtype = torch.promote_types(dtype, torch_type(t))
    if any(rank(t) != rank(tensors[0]) for t in tensors):
        raise Unsupported("cat with an empty tensor")
    return ov.concat([cast(t, dtype) for t in tensors], dim % rank(tensors[0]))


@lowers("stack")
def _stack(tensors: Sequence[Output], dim: int = 0) -> Any:
    dim %= rank(tensors[0]) + 1
    return _cat([unsqueeze(t, dim).output(0) for t in tensors], dim)


# ---- taking apart


@lowers("split", "split_with_sizes")
def _split(x: Output, size: Any, dim: int = 0) -> list[Output]:
    if isinstance(size, list | tuple):
        sizes = list(size)
    else:
        if not isinstance(size, int):
            raise Unsupported("pieces of a size that the model computes")
        total = length(x, dim)  # it decides how many pieces there are
        sizes = [min(size, total - i) for i in range(0, total, size)] or [0]
    if all(isinstance(s, int) for s in sizes):
        return list(ov.variadic_split(x, axis(x, dim), np.array(sizes, np.int64)).outputs())
    ends = [scalar(0)]
    for s in sizes:
        ends.append(ov.add(ends[-1], scalar(s)).output(0))
    return _between(x, dim, ends)


@lowers("chunk")
def _chunk(x: Output, count: int, dim: int = 0) -> list[Output]:
    total = size_of(x, dim)
    if isinstance(total, int):
        return _split(x, max(-(-total // count), 1), dim)
    size = floor_quotient(ov.add(total, scalar(count - 1)), scalar(count))
    ends = [ov.minimum(ov.multiply(size, scalar(i)), total).output(0) for i in range(count + 1)]
    return _between(x, dim, ends)


@lowers("tensor_split")
def _tensor_split(x: Output, parts: Any, dim: int = 0) -> list[Output]:
    if isinstance(parts, list | tuple):
        return _between(x, dim, [0, *parts, LAST])
    if not isinstance(parts, int):
        raise Unsupported("as many parts as the model computes")
    total = scalar(size_of(x, dim))
    size, longer = floor_quotient(total, scalar(parts)), ov.floor_mod(total, scalar(parts))
    ends = [
        ov.add(ov.multiply(size, scalar(i)), ov.minimum(longer, scalar(i))).output(0)
        for i in range(parts + 1)
    ]
    return _between(x, dim, ends)


@lowers("unbind")
def _unbind(x: Output, dim: int = 0) -> list[Output]:
    return [select(x, dim, i).output(0) for i in range(length(x, dim))]


def _between(x: Output, dim: int, ends: Sequence[Any]) -> list[Output]:
    return [_part(x, dim, a, b) for a, b in itertools.pairwise(ends)]


def _part(x: Output, dim: int, start: Any, end: Any) -> Output:
    return ov.slice(x, ints(start), ints(end), ints(1), ints(dim % rank(x))).output(0)


@lowers("diff")
def _diff(x: Output, n: int = 1, dim: int = -1, before: Any = None, after: Any = None) -> Any:
    if torch_type(x) == torch.bool:
        raise Unsupported("differences of booleans")
    given = [v for v in (before, x, after) if v is not None]
    x = _cat(given, dim).output(0) if len(given) > 1 else x
    for _ in range(n):
        x = ov.subtract(_part(x, dim, 1, LAST), _part(x, dim, 0, -1)).output(0)
    return x


@lowers("kthvalue")
def _kthvalue(x: Output, k: int, dim: int = -1, keepdim: bool = False) -> list[Output]:
    if not isinstance(k, int):
        raise Unsupported("a k that the model computes")
    sorts = ov.topk(x, scalar(k), dim % rank(x), "min", "value", "i64", stable=True)
    last = scalar(k - 1) if not keepdim else ints(k - 1)
    return [ov.gather(v, last, axis(x, dim)).output(0) for v in sorts.outputs()]
