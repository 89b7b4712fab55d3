"""The table's second part: pooling, reductions and operators that move values about."""

import math
import operator
from collections.abc import Sequence
from typing import Any

import numpy as np
import openvino.opset15 as ov
import torch
from openvino import Output, Type

from .ops import Unsupported, cast, each, ints, length, like, lowers, pair, rank, torch_type

LAST = np.iinfo(np.int64).max


@lowers("max_pool1d", "max_pool2d", "max_pool3d")
def _max_pool(x, kernel, stride=(), padding=0, dilation=1, ceil=False):
    spatial = rank(x) - 2
    kernel = each(kernel, spatial)
    stride, padding = each(stride or kernel, spatial), each(padding, spatial)
    dilation = each(dilation, spatial)
    rounding = "ceil_torch" if ceil else "floor"
    return ov.max_pool(x, stride, dilation, padding, padding, kernel, rounding)


@lowers("avg_pool1d", "avg_pool2d", "avg_pool3d")
def _avg_pool(x, kernel, stride=(), padding=0, ceil=False, include_pad=True, divisor=None):
    if divisor is not None:
        raise Unsupported("avg_pool with divisor_override")
    spatial = rank(x) - 2
    kernel = each(kernel, spatial)
    stride, padding = each(stride or kernel, spatial), each(padding, spatial)
    exclude = not include_pad and any(padding)
    rounding = "ceil_torch" if ceil else "floor"
    return ov.avg_pool(x, stride, padding, padding, kernel, exclude, rounding)


@lowers("adaptive_avg_pool1d", "adaptive_avg_pool2d", "adaptive_avg_pool3d")
def _adaptive_avg_pool(x, size):
    spatial = list(range(2, rank(x)))
    size = each(size, len(spatial))
    if size == [1] * len(spatial):
        return ov.reduce_mean(x, np.array(spatial, np.int64), True)
    inputs = [length(x, d) for d in spatial]
    if any(i % s for i, s in zip(inputs, size, strict=True)):
        return ov.adaptive_avg_pool(x, np.array(size, np.int64))
    kernel = [i // s for i, s in zip(inputs, size, strict=True)]
    zeros = [0] * len(spatial)
    return ov.avg_pool(x, kernel, zeros, zeros, kernel, False, "floor")


def _reduce(fn, x, dims, keepdim):
    dims = list(range(rank(x))) if dims in (None, []) else each(dims, 1)
    return fn(x, np.array([d % rank(x) for d in dims], np.int64), keepdim)


@lowers("mean")
def _mean(x, dims=None, keepdim=False, dtype=None):
    return _reduce(ov.reduce_mean, cast(x, dtype or torch_type(x)), dims, keepdim)


@lowers("sum")
def _sum(x, dims=None, keepdim=False, dtype=None):
    return _reduce(ov.reduce_sum, cast(x, dtype or _sum_type(x)), dims, keepdim)


@lowers("cumsum")
def _cumsum(x, dim, dtype=None):
    return ov.cum_sum(cast(x, dtype or _sum_type(x)), ov.constant(np.int64(dim % rank(x))))


def _sum_type(x: Output) -> torch.dtype:
    kind = torch_type(x)
    return kind if kind.is_floating_point else torch.int64


@lowers("linalg_vector_norm")
def _vector_norm(x, order=2, dims=None, keepdim=False, dtype=None):
    if order not in (1, 2):
        raise Unsupported(f"a norm of order {order}")
    return _reduce(ov.reduce_l1 if order == 1 else ov.reduce_l2, x, dims, keepdim)


@lowers("amax")
def _amax(x, dims=None, keepdim=False):
    return _reduce(ov.reduce_max, x, dims, keepdim)


@lowers("amin")
def _amin(x, dims=None, keepdim=False):
    return _reduce(ov.reduce_min, x, dims, keepdim)


@lowers("argmax")
def _argmax(x, dim=None, keepdim=False, mode="max"):
    if dim is None:
        raise Unsupported(f"arg{mode} of the flattened tensor")
    one = ov.constant(np.int64(1))
    found = ov.topk(x, one, dim, mode, "value", "i64", stable=True).output(1)  # the first of equals
    return found if keepdim else ov.squeeze(found, np.array([dim % rank(x)], np.int64)).output(0)


lowers("argmin")(lambda x, dim=None, keepdim=False: _argmax(x, dim, keepdim, "min"))


@lowers("max")
def _max(x, dim=None, keepdim=False, mode="max"):
    """Of all values, of two tensors, or along a dimension with indices."""
    reduce, two = (_amax, ov.maximum) if mode == "max" else (_amin, ov.minimum)
    if isinstance(dim, Output):
        return two(*pair(x, dim))
    if dim is None:
        return reduce(x)
    return [reduce(x, dim, keepdim).output(0), _argmax(x, dim, keepdim, mode)]


lowers("min")(lambda x, dim=None, keepdim=False: _max(x, dim, keepdim, "min"))


# ---- shape


@lowers("view", "reshape", "_unsafe_view")
def reshape(x: Output, shape: Sequence[Any]) -> Any:
    """In another shape, of numbers and scalar outputs; one of them may be -1."""
    free = [i for i, s in enumerate(shape) if isinstance(s, Output)]
    if len(free) == 1 and -1 not in shape:
        shape = [-1 if i == free[0] else s for i, s in enumerate(shape)]
    return ov.reshape(x, ints(shape), False)


@lowers("flatten")
def _flatten(x, start=0, end=-1):
    start, end = start % rank(x), end % rank(x)
    if start == 1 and end == rank(x) - 1:
        return ov.reshape(x, np.array([0, -1], np.int64), True)
    sizes: list[Any] = [0] * start + [-1]
    for d in range(end + 1, rank(x)):
        sizes.append(size_of(x, d))
    return ov.reshape(x, ints(sizes), True)


@lowers("unflatten")
def _unflatten(x, dim, sizes):
    dim %= rank(x)
    before: list[Any] = [size_of(x, d) for d in range(dim)]
    after = [size_of(x, d) for d in range(dim + 1, rank(x))]
    return reshape(x, before + list(sizes) + after)


@lowers("sym_size")
def size_of(x: Output, dim: int) -> Any:
    """A size: a number where it is known, else a scalar output."""
    size = x.get_partial_shape()[dim % rank(x)]
    if size.is_static:
        return size.get_length()
    axis = ov.constant(np.int64(0))
    return ov.gather(ov.shape_of(x, Type.i64), ov.constant(np.int64(dim % rank(x))), axis).output(0)


@lowers("permute")
def _permute(x, dims):
    return ov.transpose(x, np.array([d % rank(x) for d in dims], np.int64))


@lowers("transpose", "swapaxes", "swapdims")
def _transpose(x, a, b):
    order = list(range(rank(x)))
    order[a], order[b] = order[b], order[a]
    return _permute(x, order)


@lowers("t")
def _t(x):
    return _transpose(x, 0, 1) if rank(x) == 2 else x


@lowers("unsqueeze")
def unsqueeze(x: Output, dim: int) -> Any:
    """With a new dimension of size 1."""
    return ov.unsqueeze(x, np.array([dim % (rank(x) + 1)], np.int64))


@lowers("squeeze")
def _squeeze(x, dims=None):
    dims = range(rank(x)) if dims is None else each(dims, 1)
    ones = [d % rank(x) for d in dims if length(x, d) == 1]
    return ov.squeeze(x, np.array(ones, np.int64)) if ones else x


@lowers("expand")
def _expand(x, sizes, implicit=False):
    sizes = [1 if isinstance(s, int) and s == -1 else s for s in sizes]
    return ov.broadcast(x, ints(sizes), broadcast_spec="BIDIRECTIONAL")


@lowers("slice")
def _slice(x, dim=0, start=None, end=None, step=1):
    start, end = start or 0, LAST if end is None else end
    if start == 0 and end == LAST and step == 1:
        return x
    return ov.slice(x, ints(start), ints(end), ints(step), ints(dim % rank(x)))


@lowers("select")
def _select(x, dim, index):
    return ov.gather(x, like_int(index), ov.constant(np.int64(dim % rank(x))))


def like_int(value: Any) -> Output:
    """An index, known or not, as a scalar output."""
    return value if isinstance(value, Output) else ov.constant(np.int64(value)).output(0)


@lowers("repeat")
def _repeat(x, counts):
    return ov.tile(x, ints(counts))


@lowers("cat")
def _cat(tensors: Sequence[Output], dim=0):
    return ov.concat(list(tensors), dim % rank(tensors[0]))


@lowers("stack")
def _stack(tensors: Sequence[Output], dim=0):
    dim %= rank(tensors[0]) + 1
    return ov.concat([unsqueeze(t, dim).output(0) for t in tensors], dim)


def _parts(x, sizes, dim):
    axis = ov.constant(np.int64(dim % rank(x)))
    return list(ov.variadic_split(x, axis, np.array(sizes, np.int64)).outputs())


@lowers("split", "split_with_sizes")
def _split(x, size, dim=0):
    if isinstance(size, list):
        return _parts(x, size, dim)
    total = length(x, dim)
    return _parts(x, [min(size, total - i) for i in range(0, total, size)], dim)


@lowers("chunk")
def _chunk(x, count, dim=0):
    return _split(x, math.ceil(length(x, dim) / count), dim)


@lowers("unbind")
def _unbind(x, dim=0):
    return [_select(x, dim, i).output(0) for i in range(length(x, dim))]


@lowers(operator.getitem)
def _getitem(values, index):
    return values[index]


@lowers("roll")
def _roll(x, shifts, dims=()):
    if not dims:
        raise Unsupported("roll of the flattened tensor")
    return ov.roll(x, ints(shifts), ints(list(each(dims, 1))))


@lowers("pixel_shuffle")
def _pixel_shuffle(x, factor):
    return ov.depth_to_space(x, "depth_first", factor)


@lowers("pixel_unshuffle")
def _pixel_unshuffle(x, factor):
    return ov.space_to_depth(x, "depth_first", factor)


@lowers("pad", "constant_pad_nd")
def _pad(x, pads, mode="constant", value=None):
    if not isinstance(mode, str):
        mode, value = "constant", mode
    if mode == "circular" or not all(isinstance(p, int) for p in pads):
        raise Unsupported("circular or computed padding")
    both = [(0, 0)] * (rank(x) - len(pads) // 2)
    both += [(pads[i], pads[i + 1]) for i in range(len(pads) - 2, -1, -2)]
    mode = {"replicate": "edge"}.get(mode, mode)
    begin, end = ([p[k] for p in both] for k in (0, 1))
    return ov.pad(x, ints(begin), ints(end), mode, like(value or 0, x))


def _interpolate(x, size, scales, mode, transformation):
    axes = np.arange(2, rank(x))
    if size is None and scales is None:
        raise Unsupported("interpolate without size")
    by_size = scales is None
    target = ints(size) if by_size else ov.constant(np.array(scales, np.float32)).output(0)
    return ov.interpolate(
        x,
        target,
        mode,
        "sizes" if by_size else "scales",
        coordinate_transformation_mode=transformation,
        nearest_mode="floor",
        axes=axes,
    )


@lowers("upsample_nearest1d", "upsample_nearest2d", "upsample_nearest3d")
def _nearest(x, size, scales=None, *rest):
    if rest or isinstance(scales, int | float):
        raise Unsupported("interpolate with a scale per argument")
    return _interpolate(x, size, scales, "nearest", "asymmetric")


@lowers("upsample_bilinear2d")
def _bilinear(x, size, align_corners, scales=None, *rest):
    if rest or isinstance(scales, int | float):
        raise Unsupported("interpolate with a scale per argument")
    transformation = "align_corners" if align_corners else "pytorch_half_pixel"
    return _interpolate(x, size, scales, "linear_onnx", transformation)
