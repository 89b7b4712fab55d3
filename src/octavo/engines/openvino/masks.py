"""The table's entries for what masks are made of: new tensors, choices and indices."""

from functools import partial
from typing import Any

import openvino.opset15 as ov
import torch
from openvino import Output, Type

from .shapes import reshape, size_of, unsqueeze
from .table import Unsupported, lowers
from .values import axis, cast, ints, like, pair, rank, scalar, torch_type

# ---- new tensors; options such as the device are ignored


@lowers("full")
def _full(size: Any, value: Any, dtype: torch.dtype | None = None, **_: Any) -> Any:
    if dtype is None:
        dtype = torch_type(value) if isinstance(value, Output) else torch.tensor(value).dtype
    return ov.broadcast(cast(value, dtype), ints(size))


@lowers("full_like")
def _full_like(x: Output, value: Any, dtype: torch.dtype | None = None, **_: Any) -> Any:
    return ov.broadcast(cast(value, dtype or torch_type(x)), ov.shape_of(x, Type.i64))


@lowers("new_full")
def _new_full(x: Output, size: Any, value: Any, dtype: Any = None, **_: Any) -> Any:
    return _full(size, value, dtype or torch_type(x))


for _name, _value in (("zeros", 0.0), ("ones", 1.0)):
    lowers(_name)(partial(_full, value=_value))
    lowers(f"{_name}_like")(partial(_full_like, value=_value))
    lowers(f"new_{_name}")(partial(_new_full, value=_value))


@lowers("scalar_tensor")
def _scalar_tensor(value: Any, dtype: torch.dtype | None = None, **_: Any) -> Output:
    return cast(value, dtype or torch.float32)


@lowers("arange")
def _arange(*bounds: Any, dtype: torch.dtype | None = None, **_: Any) -> Output:
    start, end, step = {1: (0, *bounds, 1), 2: (*bounds, 1)}.get(len(bounds), bounds)
    is_real = any(isinstance(b, float) for b in bounds)
    dtype = dtype or (torch.float32 if is_real else torch.int64)
    if not any(isinstance(b, Output) for b in bounds):
        return ov.constant(torch.arange(start, end, step, dtype=dtype).numpy()).output(0)
    if is_real:
        raise Unsupported("arange of a computed length in steps that are not integers")
    whole = ov.range(*(cast(b, torch.int64) for b in (start, end, step)), "i64")
    return cast(whole.output(0), dtype)


@lowers("triu")
def _triu(x: Output, diagonal: int = 0, keep: Any = ov.greater_equal) -> Any:
    rows, columns = (_arange(size_of(x, d)) for d in (-2, -1))
    offset = ov.subtract(columns, unsqueeze(rows, 1))
    return ov.select(keep(offset, ints(diagonal)), x, like(0, x))


lowers("tril")(partial(_triu, keep=ov.less_equal))


# ---- choices


@lowers("where")
def _where(condition: Output, a: Any, b: Any) -> Any:
    return ov.select(cast(condition, torch.bool), *pair(a, b))


@lowers("masked_fill")
def _masked_fill(x: Output, mask: Output, value: Any) -> Any:
    return ov.select(mask, cast(value, torch_type(x)), x)


# ---- indices


@lowers("index_select")
def _index_select(x: Output, dim: int, index: Output) -> Any:
    return ov.gather(x, index if rank(index) else unsqueeze(index, 0), axis(x, dim))


@lowers("gather")
def _gather(x: Output, dim: int, index: Output, sparse: bool = False) -> Any:
    """From as much of x as there are indices in the other dimensions."""
    dim %= rank(x)
    for d in range(rank(x)):
        size, count = size_of(x, d), size_of(index, d)
        if d == dim or (isinstance(size, int) and size == count):
            continue
        # not a Slice, which OpenVINO drops before GatherElements: it then finds sizes that differ
        x = ov.gather(x, _arange(count), scalar(d)).output(0)
    return ov.gather_elements(x, index, dim)


@lowers("index")
def _index(x: Output, indices: list[Any]) -> Any:
    """x[:, i]; or x[i, j, ...], as rows of x with its first dimensions flattened."""
    given = [d for d, i in enumerate(indices) if i is not None]
    if any(torch_type(indices[d]) in (torch.bool, torch.uint8) for d in given):
        raise Unsupported("a mask as index")
    if len(given) == 1:
        return ov.gather(x, indices[given[0]], axis(x, given[0]))
    if len(given) != len(indices):
        raise Unsupported("several indices after a slice")
    row = scalar(0)
    for d, i in enumerate(indices):
        size = scalar(size_of(x, d))
        row = ov.add(ov.multiply(row, size), ov.floor_mod(cast(i, torch.int64), size))
    rest = [size_of(x, d) for d in range(len(indices), rank(x))]
    return ov.gather(reshape(x, [-1, *rest]), row, scalar(0))
