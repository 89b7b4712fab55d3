"""The table's third part, what masks are made of: new tensors, choices, indices."""

import numpy as np
import openvino.opset15 as ov
import torch
from openvino import Output, Type

from .ops import Unsupported, cast, element_type, ints, like, lowers, pair, rank, torch_type
from .shapes import like_int, reshape, size_of, unsqueeze


@lowers("full")
def _full(size, value, dtype=None, **_):
    if dtype is None:
        dtype = torch_type(value) if isinstance(value, Output) else torch.tensor(value).dtype
    return ov.broadcast(cast(value, dtype), ints(size))


@lowers("full_like")
def _full_like(x, value, dtype=None, **_):
    return ov.broadcast(cast(value, dtype or torch_type(x)), ov.shape_of(x, Type.i64))


@lowers("new_full")
def _new_full(x, size, value, dtype=None, **_):
    return _full(size, value, dtype or torch_type(x))


for _name, _value in (("zeros", 0.0), ("ones", 1.0)):
    lowers(_name)(lambda size, _value=_value, **o: _full(size, _value, **o))
    lowers(f"{_name}_like")(lambda x, _value=_value, **o: _full_like(x, _value, **o))
    lowers(f"new_{_name}")(lambda x, size, _value=_value, **o: _new_full(x, size, _value, **o))


@lowers("scalar_tensor")
def _scalar_tensor(value, dtype=None, **_):
    return cast(value, dtype or torch.float32)


@lowers("arange")
def _arange(*bounds, dtype=None, **_):
    start, end, step = {1: (0, *bounds, 1), 2: (*bounds, 1)}.get(len(bounds), bounds)
    if dtype is None:
        dtype = torch.float32 if any(isinstance(b, float) for b in bounds) else torch.int64
    return ov.range(*(cast(b, dtype) for b in (start, end, step)), element_type(dtype).to_string())


@lowers("triu")
def _triu(x, diagonal=0, lower=False):
    rows, columns = (_arange(size_of(x, d)).output(0) for d in (-2, -1))
    offset = ov.subtract(columns, unsqueeze(rows, 1))
    kept = (ov.less_equal if lower else ov.greater_equal)(offset, ints(diagonal))
    return ov.select(kept, x, like(0, x))


lowers("tril")(lambda x, diagonal=0: _triu(x, diagonal, lower=True))


@lowers("where")
def _where(condition, a, b):
    return ov.select(condition, *pair(a, b))


@lowers("masked_fill")
def _masked_fill(x, mask, value):
    return ov.select(mask, cast(value, torch_type(x)), x)


# ---- indices


@lowers("index_select")
def _index_select(x, dim, index):
    return ov.gather(x, index, ov.constant(np.int64(dim % rank(x))))


@lowers("gather")
def _gather(x, dim, index, sparse=False):
    dim %= rank(x)
    shapes = x.get_partial_shape(), index.get_partial_shape()
    if any(shapes[0][d] != shapes[1][d] for d in range(rank(x)) if d != dim):
        raise Unsupported("gather from a part of a tensor")
    return ov.gather_elements(x, index, dim)


@lowers("index")
def _index(x, indices):
    """x[:, i], or x[i, j, ...] as rows of x with its first dimensions made one."""
    given = [d for d, i in enumerate(indices) if i is not None]
    if any(torch_type(indices[d]) == torch.bool for d in given):
        raise Unsupported("a mask as index")
    if len(given) == 1:
        return _index_select(x, given[0], indices[given[0]])
    if len(given) != len(indices):
        raise Unsupported("several indices after a slice")
    row = like_int(0)
    for d, i in enumerate(indices):
        size = like_int(size_of(x, d))
        row = ov.add(ov.multiply(row, size), ov.floor_mod(cast(i, torch.int64), size))
    rest = [size_of(x, d) for d in range(len(indices), rank(x))]
    return _index_select(reshape(x, [-1, *rest]).output(0), 0, row)
