"""Operators that torch.onnx translates wrongly, or not at all, in terms of others.

They replace the ATen operators while the graph is traced, when free sizes are symbols. Where an
operator's own translation is right, it is called itself.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ...errors import FormatError
from ...graph.recurrent import as_float_layer, rounded_lstm
from . import dynamic
from .recurrent import KINDS, layers

aten = torch.ops.aten


def _is_fixed(*sizes: Any) -> bool:
    return all(isinstance(s, int) for s in sizes)


def _is_one(sizes: Any) -> bool:
    return _is_fixed(*sizes) and set(sizes) == {1}


def _index_nearest(target: Any, offset: float, x: Tensor, *args: Any) -> Tensor:
    """Nearest neighbours, by the index that PyTorch's kernels compute for each.

    ONNX's Resize divides by the scale, where PyTorch multiplies by its reciprocal.
    """
    sizes = target(x, *args).shape[2:]
    given = args[1] if target._overloadname == "vec" else args[1:]
    scales = given or [None] * len(sizes)
    if all(s is not None and math.log2(s) in range(8) for s in scales):
        return target(x, *args)  # enlarged by a power of 2: every quotient is exact
    for d, (size, scale) in enumerate(zip(sizes, scales, strict=True), 2):
        step = x.shape[d] / size if scale is None else 1 / scale
        places = torch.arange(size, dtype=torch.float32, device=x.device) + offset
        index = (places * step).floor().long().clamp(max=x.shape[d] - 1)
        x = x.index_select(d, index)
    return x


def _resize_smoothly(target: Any, x: Tensor, size: Any, align: bool, *scales: Any) -> Tensor:
    """Antialiased: torch.onnx takes the scale from the sizes, where PyTorch takes the given one."""
    if any(s is not None for s in scales) and scales != ([],):
        raise FormatError(
            "ONNX has no antialiased resize by a given scale; call F.interpolate with size= or "
            "recompute_scale_factor=True, or use compile('openvino')"
        )
    return target(x, size, align, *scales)


def _average_windows(target: Any, x: Tensor, output_size: Any) -> Tensor:
    """Adaptive average pooling as a product with a matrix for each dimension."""
    n = len(output_size)
    if _is_fixed(*x.shape[-n:], *output_size) or _is_one(output_size):
        return target(x, output_size)
    for d, size in enumerate(output_size, x.dim() - n):
        inside, width = _windows(x.shape[d], size, x.device)
        x = (x.movedim(d, -1) @ (inside / width).T).movedim(-1, d)
    return x


def _windows(size: Any, count: Any, device: torch.device) -> tuple[Tensor, Tensor]:
    """(count, size): is this input in the window of that output; and the windows' widths."""
    i = torch.arange(count, device=device)[:, None]
    start = (i * size).div(count, rounding_mode="floor")
    end = ((i + 1) * size + count - 1).div(count, rounding_mode="floor")
    j = torch.arange(size, device=device)
    return ((j >= start) & (j < end)).float(), (end - start).float()


def _largest_in_windows(target: Any, x: Tensor, output_size: Any) -> tuple[Tensor, Tensor]:
    """Adaptive max pooling and the indices in each channel, of everything or of equal windows."""
    n = len(output_size)
    sizes = x.shape[-n:]
    if _is_one(output_size):
        values, indices = x.flatten(-n).max(-1)
        shape = (*x.shape[:-n], *output_size)
        return values.view(shape), indices.view(shape)
    if _is_fixed(*sizes, *output_size):
        windows = [s // o for s, o in zip(sizes, output_size, strict=True)]
        if all(w * o == s for w, o, s in zip(windows, output_size, sizes, strict=True)):
            pool: Any = (F.max_pool1d, F.max_pool2d, F.max_pool3d)[n - 1]
            return pool(x, windows, return_indices=True)
    raise FormatError(
        "adaptive max pooling has no ONNX operator for windows of different sizes; use "
        "compile('openvino')"
    )


def _pool_with_indices(dims: int, target: Any, x: Tensor, *args: Any) -> tuple[Tensor, Tensor]:
    """Max pooling whose maxima are read at its indices.

    ONNX Runtime rounds before a pooling what is rounded after it: the maxima are the same, but
    inputs that become equal would change the indices.
    """
    _, indices = target(x, *args)
    return x.flatten(-dims).gather(-1, indices.flatten(-dims)).view_as(indices), indices


def _transpose_to_a_free_size(
    target: Any,
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Any = 1,
    padding: Any = 0,
    output_padding: Any = 0,
    groups: int = 1,
    dilation: Any = 1,
) -> Tensor:
    """A transposed convolution whose output padding is computed: the most there can be, cut off."""
    n = weight.dim() - 2
    extra = _each(output_padding, n)
    stride, padding, dilation = (_each(a, n) for a in (stride, padding, dilation))
    if _is_fixed(*extra):
        return target(x, weight, bias, stride, padding, extra, groups, dilation)
    most = [max(s, d) - 1 for s, d in zip(stride, dilation, strict=True)]
    y = target(x, weight, bias, stride, padding, most, groups, dilation)
    for d, (have, want) in enumerate(zip(most, extra, strict=True), y.dim() - n):
        y = y.narrow(d, 0, y.shape[d] - have + want)
    return y


def _each(sizes: Any, n: int) -> list[Any]:
    """One size for each of n dimensions: PyTorch takes one for all as well."""
    sizes = list(sizes) if isinstance(sizes, list | tuple) else [sizes]
    return sizes * n if len(sizes) == 1 else sizes


def _split_evenly(target: Any, x: Tensor, sections: int, dim: int = 0) -> Any:
    """`tensor_split`, whose own kernel fixes the remainder: the first parts are longer by one."""
    size = x.shape[dim]
    if _is_fixed(size):
        return target(x, sections, dim)
    starts = [i * (size // sections) + torch.sym_min(i, size % sections) for i in range(sections)]
    ends = [*starts[1:], size]
    return [x.narrow(dim, s, e - s) for s, e in zip(starts, ends, strict=True)]


def _parts(target: Any, x: Tensor, sizes: Any, dim: int = 0) -> list[Tensor]:
    """Split and chunk as slices: ONNX Runtime cuts no integers into sequences."""
    found, start = [], 0
    for part in target(x, sizes, dim):
        found.append(x.narrow(dim, start, part.shape[dim]))
        start += part.shape[dim]
    return found


def _rows(target: Any, x: Tensor, dim: int = 0) -> list[Tensor]:
    """Unbind as slices, for the same reason."""
    return [x.select(dim, i) for i in range(len(target(x, dim)))]


def _pool_in_two_dimensions(
    target: Any,
    x: Tensor,
    kernel_size: Any,
    stride: Any = (),
    padding: Any = 0,
    dilation: Any = 1,
    ceil_mode: bool = False,
) -> Any:
    """1-d max pooling as 2-d, since PyTorch's own fixes the length."""
    (kernel,), (pad,), (step,) = (_each(a, 1) for a in (kernel_size, padding, dilation))
    (move,) = _each(stride, 1) or [kernel]
    pool = aten.max_pool2d if target.__name__.startswith("max_pool1d.") else _pool_2d_with_indices
    y = pool(x.unsqueeze(-2), [1, kernel], [1, move], [0, pad], [1, step], ceil_mode)
    return y.squeeze(-2) if isinstance(y, Tensor) else tuple(t.squeeze(-2) for t in y)


_pool_2d_with_indices = functools.partial(
    _pool_with_indices, 2, aten.max_pool2d_with_indices.default
)


def _replaced() -> dict[Any, Callable[..., Any]]:
    found: dict[Any, Callable[..., Any]] = {}

    def replace(packet: Any, function: Callable[..., Any]) -> None:
        for name in packet.overloads():
            if "out" not in name:
                target = getattr(packet, name)
                found[target] = functools.partial(function, target)

    for d in (1, 2, 3):
        for name, offset in (("upsample_nearest", 0.0), ("_upsample_nearest_exact", 0.5)):
            replace(getattr(aten, f"{name}{d}d"), lambda t, *a, o=offset: _index_nearest(t, o, *a))
        replace(getattr(aten, f"adaptive_avg_pool{d}d"), _average_windows)
        replace(getattr(aten, f"adaptive_max_pool{d}d"), _largest_in_windows)
        if d > 1:
            pool = getattr(aten, f"max_pool{d}d_with_indices")
            replace(pool, functools.partial(_pool_with_indices, d))
        replace(getattr(aten, f"conv_transpose{d}d"), _transpose_to_a_free_size)
    found[aten.tensor_split.sections] = functools.partial(_split_evenly, aten.tensor_split.sections)
    for packet in (aten.split, aten.split_with_sizes, aten.chunk):
        replace(packet, _parts)
    replace(aten.unbind, _rows)
    replace(aten.max_pool1d, _pool_in_two_dimensions)
    replace(aten.max_pool1d_with_indices, _pool_in_two_dimensions)
    replace(aten._adaptive_avg_pool2d, _average_windows)
    replace(aten._adaptive_avg_pool3d, _average_windows)
    replace(aten._upsample_bilinear2d_aa, _resize_smoothly)
    replace(aten._upsample_bicubic2d_aa, _resize_smoothly)
    found |= {getattr(aten, kind).input: layers(kind) for kind in KINDS}
    found[rounded_lstm] = lambda *args: layers("lstm")(*as_float_layer(args))
    return found | dynamic.TRACED


TRACED = _replaced()
