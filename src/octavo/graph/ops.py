"""The operators Octavo adds to PyTorch: quantize, dequantize, the same by groups, and two hints.

Integers are plain uint8 / int8 tensors; scale and zero_point are separate tensors, so that
`.to(device)` and `.to(dtype)` of a quantized model convert them.

`quantize_groups` rounds to int8 with the scales that `dynamic_scale` finds in the values of a call:
of each position, one scale for `group_size` neighbouring channels (of the last dimension; the last
group may be shorter), the largest magnitude over 127. Results do not depend on the batch.
`dequantize_groups` also reads rows of int8 tables, each with a scale of its own.

The hints return their input unchanged and hold the qparams with which an engine may quantize it.
`fuse_in_accumulator`: the addition after it may be fused into the convolution before it, so that
only the sum is rounded. `requantize_hint`: an engine whose kernels return only integers may
quantize the value.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from .tensors import along

LARGEST = 127  # integer of dynamic quantization
_HINTS = ("fuse_in_accumulator", "requantize_hint")
_INTEGERS = "Tensor x, Tensor scale, Tensor zero_point, int qmin, int qmax"

_lib = torch.library.Library("octavo", "DEF")
_lib.define(f"quantize({_INTEGERS}, ScalarType dtype, int? axis=None) -> Tensor")
_lib.define("dequantize(Tensor q, Tensor scale, Tensor? zero_point=None, int? axis=None) -> Tensor")


def _quantize(
    x: Tensor,
    scale: Tensor,
    zero_point: Tensor,
    qmin: int,
    qmax: int,
    dtype: torch.dtype,
    axis: int | None = None,
) -> Tensor:
    q = x / along(scale, axis, x.dim())
    q = q.round_().add_(along(zero_point, axis, x.dim()))
    return q.clamp_(qmin, qmax).to(dtype)


def _dequantize(
    q: Tensor, scale: Tensor, zero_point: Tensor | None = None, axis: int | None = None
) -> Tensor:
    x = q.to(scale.dtype)
    if zero_point is not None:
        x = x.sub_(along(zero_point, axis, q.dim()))
    return x.mul_(along(scale, axis, q.dim()))


def _hint(x: Tensor, scale: Tensor, zero_point: Tensor, qmin: int, qmax: int) -> Tensor:
    return x.clone()


def find_dynamic_scale(x: Tensor, group_size: int) -> Tensor:
    """What `dynamic_scale` computes."""
    whole = F.pad(x.abs(), (0, -x.shape[-1] % group_size))
    scale = whole.unflatten(-1, (-1, group_size)).amax(-1) / LARGEST
    return torch.where(scale == 0, 1, scale)


def _spread(scale: Tensor, group_size: int, channels: int) -> Tensor:
    """The scale of each channel; one for all of them."""
    if group_size >= channels:
        return scale
    each = scale.unsqueeze(-1).expand(*scale.shape, group_size)
    return each.flatten(-2)[..., :channels]


def round_groups(x: Tensor, scale: Tensor, group_size: int) -> Tensor:
    """The integers of `quantize_groups`, as floats."""
    q = torch.round(x / _spread(scale, group_size, x.shape[-1]))
    return q.clamp(-LARGEST, LARGEST)


def _quantize_groups(x: Tensor, scale: Tensor, group_size: int) -> Tensor:
    return round_groups(x, scale, group_size).to(torch.int8)


def scale_groups(q: Tensor, scale: Tensor, group_size: int) -> Tensor:
    """What `dequantize_groups` computes."""
    return q.to(scale.dtype) * _spread(scale, group_size, q.shape[-1])


_lib.impl("quantize", _quantize, "CompositeExplicitAutograd")
_lib.impl("dequantize", _dequantize, "CompositeExplicitAutograd")
_lib.define("dynamic_scale(Tensor x, int group_size) -> Tensor")
_lib.define("quantize_groups(Tensor x, Tensor scale, int group_size) -> Tensor")
_lib.define("dequantize_groups(Tensor q, Tensor scale, int group_size) -> Tensor")
_lib.impl("dynamic_scale", find_dynamic_scale, "CompositeExplicitAutograd")
_lib.impl("quantize_groups", _quantize_groups, "CompositeExplicitAutograd")
_lib.impl("dequantize_groups", scale_groups, "CompositeExplicitAutograd")


torch.library.register_fake(
    "octavo::quantize",
    lambda x, scale, zero_point, qmin, qmax, dtype, axis=None: torch.empty_like(x, dtype=dtype),
    lib=_lib,
)
torch.library.register_fake(
    "octavo::dequantize",
    lambda q, scale, zero_point=None, axis=None: torch.empty_like(q, dtype=scale.dtype),
    lib=_lib,
)
torch.library.register_fake(
    "octavo::dynamic_scale",
    lambda x, group_size: x.new_empty((*x.shape[:-1], -(-x.shape[-1] // group_size))),
    lib=_lib,
)
torch.library.register_fake(
    "octavo::quantize_groups",
    lambda x, scale, group_size: torch.empty_like(x, dtype=torch.int8),
    lib=_lib,
)
torch.library.register_fake(
    "octavo::dequantize_groups",
    lambda q, scale, group_size: torch.empty_like(q, dtype=scale.dtype),
    lib=_lib,
)
for _name in _HINTS:
    _lib.define(f"{_name}({_INTEGERS}) -> Tensor")
    _lib.impl(_name, _hint, "CompositeExplicitAutograd")
    torch.library.register_fake(f"octavo::{_name}", lambda x, *_: torch.empty_like(x), lib=_lib)

quantize = torch.ops.octavo.quantize.default
dequantize = torch.ops.octavo.dequantize.default
fuse_in_accumulator = torch.ops.octavo.fuse_in_accumulator.default
requantize_hint = torch.ops.octavo.requantize_hint.default
HINTS = (fuse_in_accumulator, requantize_hint)
dynamic_scale = torch.ops.octavo.dynamic_scale.default
quantize_groups = torch.ops.octavo.quantize_groups.default
dequantize_groups = torch.ops.octavo.dequantize_groups.default
DYNAMIC = (dynamic_scale, quantize_groups, dequantize_groups)
ALL = (quantize, dequantize, *DYNAMIC, *HINTS)


def fake_quantize_groups(x: Tensor, group_size: int) -> Tensor:
    """x rounded with the scales that it has itself, and dequantized."""
    scale = find_dynamic_scale(x, group_size)
    return scale_groups(round_groups(x, scale, group_size), scale, group_size)
