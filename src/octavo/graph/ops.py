"""The operators Octavo adds to PyTorch: `octavo::quantize`, `octavo::dequantize` and two hints.

Integers are plain uint8 / int8 tensors; scale and zero_point are separate tensors, so that
`.to(device)` and `.to(dtype)` of a quantized model convert them.

The hints return their input unchanged and hold the qparams with which an engine may quantize it.
`fuse_in_accumulator`: the addition after it may be fused into the convolution before it, so that
only the sum is rounded. `requantize_hint`: an engine whose kernels return only integers may
quantize the value.
"""

import torch
from torch import Tensor

from .tensors import along

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


_lib.impl("quantize", _quantize, "CompositeExplicitAutograd")
_lib.impl("dequantize", _dequantize, "CompositeExplicitAutograd")


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
for _name in _HINTS:
    _lib.define(f"{_name}({_INTEGERS}) -> Tensor")
    _lib.impl(_name, _hint, "CompositeExplicitAutograd")
    torch.library.register_fake(f"octavo::{_name}", lambda x, *_: torch.empty_like(x), lib=_lib)

quantize = torch.ops.octavo.quantize.default
dequantize = torch.ops.octavo.dequantize.default
fuse_in_accumulator = torch.ops.octavo.fuse_in_accumulator.default
requantize_hint = torch.ops.octavo.requantize_hint.default
HINTS = (fuse_in_accumulator, requantize_hint)
ALL = (quantize, dequantize, *HINTS)
