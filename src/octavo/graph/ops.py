"""The operators Octavo adds to PyTorch, `octavo::quantize`, `dequantize` and two identities.

Integers are plain uint8 / int8 tensors; scale and zero_point are tensors beside them, so that
`.to(device)` and `.to(dtype)` of a quantized model reach them.
"""

import torch
from torch import Tensor

from .tensors import along

_lib = torch.library.Library("octavo", "DEF")
_lib.define(
    "quantize(Tensor x, Tensor scale, Tensor zero_point, int qmin, int qmax, "
    "ScalarType dtype, int? axis=None) -> Tensor"
)
for _name in ("unrounded", "roundable"):
    _lib.define(f"{_name}(Tensor x, Tensor scale, Tensor zero_point, int qmin, int qmax) -> Tensor")
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


def _unrounded(x: Tensor, scale: Tensor, zero_point: Tensor, qmin: int, qmax: int) -> Tensor:
    """x itself: an engine adds to it in the registers it is summed in, and rounds after that."""
    return x.clone()


def _roundable(x: Tensor, scale: Tensor, zero_point: Tensor, qmin: int, qmax: int) -> Tensor:
    """x itself: an engine whose kernels give integers alone rounds it to these."""
    return x.clone()


_lib.impl("unrounded", _unrounded, "CompositeExplicitAutograd")
_lib.impl("roundable", _roundable, "CompositeExplicitAutograd")
_lib.impl("quantize", _quantize, "CompositeExplicitAutograd")
_lib.impl("dequantize", _dequantize, "CompositeExplicitAutograd")


@torch.library.register_fake("octavo::quantize", lib=_lib)
def _(x, scale, zero_point, qmin, qmax, dtype, axis=None):
    return torch.empty_like(x, dtype=dtype)


@torch.library.register_fake("octavo::roundable", lib=_lib)
@torch.library.register_fake("octavo::unrounded", lib=_lib)
def _(x, scale, zero_point, qmin, qmax):
    return torch.empty_like(x)


@torch.library.register_fake("octavo::dequantize", lib=_lib)
def _(q, scale, zero_point=None, axis=None):
    return torch.empty_like(q, dtype=scale.dtype)


quantize = torch.ops.octavo.quantize.default
dequantize = torch.ops.octavo.dequantize.default
unrounded = torch.ops.octavo.unrounded.default
roundable = torch.ops.octavo.roundable.default
IDENTITIES = (unrounded, roundable)  # they tell an engine integers
ALL = (quantize, dequantize, *IDENTITIES)
