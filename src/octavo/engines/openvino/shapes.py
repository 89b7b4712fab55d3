"""The table's entries for pooling, reductions and operators that move values."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
import openvino.opset15 as ov
import torch
from openvino import Output, Type

from .table import Unsupported, lowers
from .values import axes, axis, cast, each, ints, length, pair, rank, scalar, torch_type

LAST = np.iinfo(np.int64).max


# ---- pooling


@lowers("max_pool1d", "max_pool2d", "max_pool3d")
def _max_pool(
    x: Output, kernel: Any, stride: Any = (), padding: Any = 0, dilation: Any = 1, ceil: Any = 0
) -> Any:
    window, steps, pads, gaps = _per_axis(x, kernel, stride or kernel, padding, dilation)
    return ov.max_pool(x, steps, gaps, pads, pads, window, "ceil_torch" if ceil else "floor")


@lowers("avg_pool1d", "avg_pool2d", "avg_pool3d")
def _avg_pool(
    x: Output, kernel: Any, stride: Any = (), padding: Any = 0, ceil: Any = False, *options: Any
) -> Any:
    defaults: tuple[Any, ...] = (True, None)
    include_pad, divisor = options + defaults[len(options) :]
    if divisor is not None:
        raise Unsupported("avg_pool with divisor_override")
    window, steps, pads = _per_axis(x, kernel, stride or kernel, padding)
    exclude = not include_pad and any(pads)
    return ov.avg_pool(x, steps, pads, pads, window, exclude, "ceil_torch" if ceil else "floor")


def _per_axis(x: Output, *values: Any) -> list[list[int]]:
    """Each value as a list of one number for each spatial axis of x."""
    return [each(v, rank(x) - 2) for v in values]


# ---- reductions


def _reduce(fn: Callable[..., Any], x: Output, dims: Any = None, keepdim: bool = False) -> Any:
    return fn(x, axes(x, range(rank(x)) if dims in (None, []) else each(dims, 1)), keepdim)


_amax, _amin = partial(_reduce, ov.reduce_max), partial(_reduce, ov.reduce_min)
lowers("amax")(_amax)
lowers("amin")(_amin)


@lowers("sum")
def _sum(
    x: Output, dims: Any = None, keepdim: bool = False, dtype: Any = None, fn: Any = ov.reduce_sum
) -> Any:
    return _reduce(fn, cast(x, dtype or _sum_type(x)), dims, keepdim)


lowers("mean")(partial(_sum, fn=ov.reduce_mean))


@lowers("cumsum")
def _cumsum(x: Output, dim: int, dtype: Any = None) -> Any:
    return ov.cum_sum(cast(x, dtype or _sum_type(x)), axis(x, dim))


def _sum_type(x: Output) -> torch.dtype:
    kind = torch_type(x)
    return kind if kind.is_floating_point else torch.int64


@lowers("linalg_vector_norm")
def _vector_norm(
    x: Output, order: Any = 2, dims: Any = None, keepdim: bool = False, dtype: Any = None
) -> Any:
    if order not in (1, 2):
        raise Unsupported(f"a norm of order {order}")
    x = x if dtype is None else cast(x, dtype)
    return _reduce(ov.reduce_l1 if order == 1 else ov.reduce_l2, x, dims, keepdim)


@lowers("argmax")
def _argmax(x: Output, dim: int | None = None, keepdim: bool = False, mode: str = "max") -> Any:
    if dim is None:
        raise Unsupported(f"arg{mode} of the flattened tensor")
    # stable: of several equal values, the first
    found = ov.topk(x, scalar(1), dim, mode, "value", "i64", stable=True).output(1)
    return found if keepdim else ov.squeeze(found, axes(x, [dim])).output(0)


@lowers("max")
def _max(x: Output, dim: Any = None, keepdim: bool = False, mode: str = "max") -> Any:
    """Of all values, of two tensors, or along a dimension with indices."""
    reduce, two = (_amax, ov.maximum) if mode == "max" else (_amin, ov.minimum)
    if isinstance(dim, Output):
        return two(*pair(x, dim))
    if dim is None:
        return reduce(x)
    return [reduce(x, dim, keepdim).output(0), _argmax(x, dim, keepdim, mode)]


lowers("argmin")(partial(_argmax, mode="min"))
lowers("min")(partial(_max, mode="min"))


# ---- shape


@lowers("view", "reshape", "_unsafe_view")
def reshape(x: Output, shape: Sequence[Any]) -> Any:
    """x in another shape, of numbers and scalar outputs; one of them may be -1."""
    free = [i for i, s in enumerate(shape) if isinstance(s, Output)]
    if len(free) == 1 and -1 not in shape:
        shape = [-1 if i == free[0] else s for i, s in enumerate(shape)]
    return ov.reshape(x, ints(shape), False)


@lowers("flatten")
def _flatten(x: Output, start: int = 0, end: int = -1) -> Any:
    start, end = start % rank(x), end % rank(x)
    if start == 1 and end == rank(x) - 1:
        return ov.reshape(x, np.array([0, -1], np.int64), True)
    after = [size_of(x, d) for d in range(end + 1, rank(x))]
    return ov.reshape(x, ints([0] * start + [-1] + after), True)


@lowers("unflatten")
def _unflatten(x: Output, dim: int, sizes: Sequence[Any]) -> Any:
    dim %= rank(x)
    before = [size_of(x, d) for d in range(dim)]
    after = [size_of(x, d) for d in range(dim + 1, rank(x))]
    return reshape(x, [*before, *sizes, *after])


@lowers("sym_size")
def size_of(x: Output, dim: int) -> Any:
    """A size: a number where it is known, else a scalar output."""
    size = x.get_partial_shape()[dim % rank(x)]
    if size.is_static:
        return size.get_length()
    return ov.gather(ov.shape_of(x, Type.i64), axis(x, dim), scalar(0)).output(0)


@lowers("permute")
def _permute(x: Output, dims: Sequence[int]) -> Any:
    return ov.transpose(x, axes(x, dims))


@lowers("transpose", "swapaxes", "swapdims")
def _transpose(x: Output, a: int, b: int) -> Any:
    order = list(range(rank(x)))
    order[a], order[b] = order[b], order[a]
    return _permute(x, order)


lowers("t")(lambda x: _transpose(x, 0, 1) if rank(x) == 2 else x)


@lowers("unsqueeze")
def unsqueeze(x: Output, dim: int) -> Any:
    """x with a new dimension of size 1."""
    return ov.unsqueeze(x, np.array([dim % (rank(x) + 1)], np.int64))


@lowers("squeeze")
def _squeeze(x: Output, dims: Any = None) -> Any:
    dims = range(rank(x)) if dims is None else each(dims, 1)
    ones = [d for d in dims if length(x, d) == 1]
    return ov.squeeze(x, axes(x, ones)) if ones else x


@lowers("expand")
def _expand(x: Output, sizes: Sequence[Any], implicit: bool = False) -> Any:
    sizes = [1 if isinstance(s, int) and s == -1 else s for s in sizes]
    return ov.broadcast(x, ints(sizes), broadcast_spec="BIDIRECTIONAL")


@lowers("expand_as")
def _expand_as(x: Output, other: Output) -> Any:
    return ov.broadcast(x, ov.shape_of(other), broadcast_spec="BIDIRECTIONAL")


@lowers("slice")
def _slice(x: Output, dim: int = 0, start: Any = None, end: Any = None, step: Any = 1) -> Any:
    start, end = 0 if start is None else start, LAST if end is None else end
    if [start, end, step] == [0, LAST, 1]:
        return x
    return ov.slice(x, ints(start), ints(end), ints(step), ints(dim % rank(x)))


@lowers("select")
def select(x: Output, dim: int, index: Any) -> Any:
    """x at an index of a dimension, which is dropped; from the end if it is negative."""
    return ov.gather(x, scalar(index), axis(x, dim))


lowers("repeat")(lambda x, counts: ov.tile(x, ints(counts)))


@lowers("roll")
def _roll(x: Output, shifts: Any, dims: Any = ()) -> Any:
    if not dims:
        raise Unsupported("roll of the flattened tensor")
    return ov.roll(x, ints(shifts), ints(each(dims, 1)))


for _name, _fn in (("pixel_shuffle", ov.depth_to_space), ("pixel_unshuffle", ov.space_to_depth)):

    @lowers(_name)
    def _shuffle(x: Output, factor: int, _fn: Any = _fn) -> Any:
        if rank(x) != 4:
            raise Unsupported("pixels of other than batches of images")
        return _fn(x, "depth_first", factor)


@lowers("pad", "constant_pad_nd")
def _pad(x: Output, pads: Sequence[Any], mode: Any = "constant", value: Any = None) -> Any:
    if not isinstance(mode, str):
        mode, value = "constant", mode
    if mode == "circular" or not all(isinstance(p, int) for p in pads):
        raise Unsupported("circular or computed padding")
    both = [(0, 0)] * (rank(x) - len(pads) // 2)
    both += [(pads[i], pads[i + 1]) for i in range(len(pads) - 2, -1, -2)]
    mode = {"replicate": "edge"}.get(mode, mode)
    begin, end = ([p[k] for p in both] for k in (0, 1))
    return ov.pad(x, ints(begin), ints(end), mode, cast(value or 0, torch_type(x)))
