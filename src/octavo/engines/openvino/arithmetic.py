"""The table's entries for arithmetic, types, activations and normalization."""

import math
from typing import Any

import numpy as np
import openvino.opset15 as ov
import torch
from openvino import Output, Type

from .faults import forgets_epsilon
from .sizes import floor_quotient
from .table import TABLE, Unsupported, lowers
from .values import cast, like, pair, rank, scalar, torch_type

# Names that OpenVINO shares: of operators on two operands, on one, and on truth values.
TWO = ("maximum", "minimum", "bitwise_and", "bitwise_or", "bitwise_xor")
ONE = ("relu", "floor", "bitwise_not")
REAL = ("sigmoid", "tanh", "mish", "exp", "log", "sqrt", "erf", "sin", "cos")
LOGICAL = ("logical_and", "logical_or", "logical_xor", "logical_not")
BINARY = {name: getattr(ov, name) for name in TWO} | {
    "mul": ov.multiply,
    "pow": ov.power,
    "eq": ov.equal,
    "ne": ov.not_equal,
    "lt": ov.less,
    "le": ov.less_equal,
    "gt": ov.greater,
    "ge": ov.greater_equal,
    "__and__": ov.bitwise_and,
    "__or__": ov.bitwise_or,
    "__xor__": ov.bitwise_xor,
}
UNARY = {name: getattr(ov, name) for name in ONE} | {
    "hardswish": ov.hswish,
    "hardsigmoid": ov.hsigmoid,
    "silu": ov.swish,
    "neg": ov.negative,
    "abs": ov.absolute,
    "ceil": ov.ceiling,
}
UNARY_REAL = {name: getattr(ov, name) for name in REAL}  # of integers too, they give real numbers
SMALL = (torch.uint8, torch.int8, torch.int16)
POWERS = {"rsqrt": -0.5, "reciprocal": -1.0}


def _as_real(x: Output) -> Output:
    return x if x.get_element_type().is_real() else cast(x, torch.float32)


for _name, _fn in BINARY.items():
    lowers(_name)(lambda a, b, _fn=_fn: _fn(*pair(a, b)))
for _name, _fn in UNARY.items():
    lowers(_name)(lambda x, _fn=_fn: _fn(x))
for _name in LOGICAL:
    _fn = getattr(ov, _name)
    lowers(_name)(lambda *values, _fn=_fn: _fn(*(cast(v, torch.bool) for v in values)))
for _name, _fn in UNARY_REAL.items():
    lowers(_name)(lambda x, _fn=_fn: _fn(_as_real(x)))
for _name, _power in POWERS.items():
    lowers(_name)(lambda x, _power=_power: ov.power(y := _as_real(x), like(_power, y)))
for _name, _fn in (("add", ov.add), ("sub", ov.subtract)):

    @lowers(_name)
    def _add(a: Any, b: Any, alpha: Any = 1, _fn: Any = _fn) -> Any:
        a, b = pair(a, b)
        return _fn(a, b if alpha == 1 else ov.multiply(b, like(alpha, b)))


@lowers("rsub")
def _rsub(a: Output, b: Any, alpha: Any = 1) -> Any:
    return TABLE[torch.ops.aten.sub](b, a, alpha)


@lowers("div")
def _div(a: Any, b: Any, rounding_mode: str | None = None) -> Any:
    a, b = pair(a, b)
    if rounding_mode == "floor":
        return _floor_divide(a, b)
    if rounding_mode is not None:
        raise Unsupported(f"division rounded by {rounding_mode}")
    return ov.divide(_as_real(a), _as_real(b))


@lowers("floor_divide")
def _floor_divide(a: Any, b: Any) -> Any:
    a, b = pair(a, b)
    return _floor_and_rest(a, b)[0] if a.get_element_type().is_real() else floor_quotient(a, b)


@lowers("remainder")
def _remainder(a: Any, b: Any) -> Any:
    a, b = pair(a, b)
    return _floor_and_rest(a, b)[1] if a.get_element_type().is_real() else ov.floor_mod(a, b)


def _floor_and_rest(a: Output, b: Output) -> tuple[Any, Any]:
    """floor(a / b) and what it leaves of a.

    1 / 0.1 is 10 in float32, although 0.1 is a little more than a tenth there: PyTorch's quotient
    is 9. So the quotient is multiplied by b again, in two halves, whose products are exact.
    """
    quotient = ov.floor(ov.divide(a, b))
    large = ov.multiply(b, like(4097.0, b))
    high = ov.subtract(large, ov.subtract(large, b))
    rest = ov.subtract(a, ov.multiply(quotient, high))
    rest = ov.subtract(rest, ov.multiply(quotient, ov.subtract(b, high)))
    zero = like(0.0, a)
    opposite = ov.logical_xor(ov.less(rest, zero), ov.less(b, zero))
    too_large = ov.logical_and(opposite, ov.not_equal(rest, zero))
    less = ov.subtract(quotient, like(1.0, a))
    return ov.select(too_large, less, quotient), ov.select(too_large, ov.add(rest, b), rest)


# ---- types


@lowers("to", "_to_copy", "type_as")
def _to(x: Output, *options: Any, dtype: torch.dtype | None = None, **_: Any) -> Any:
    for value in options:  # a device, flags, a type; or a tensor, for type_as and to.other
        dtype = torch_type(value) if isinstance(value, Output) else dtype
        dtype = value if isinstance(value, torch.dtype) else dtype
    if dtype in SMALL and x.get_element_type().is_real():
        raise Unsupported(f"conversion of real numbers to {dtype}, which PyTorch wraps around")
    return x if dtype is None else cast(x, dtype)


# ---- activations


@lowers("clamp", "hardtanh", "clamp_min")
def _clamp(x: Output, low: Any = None, high: Any = None) -> Any:
    if x.get_element_type().is_real() and not any(isinstance(b, Output) for b in (low, high)):
        return ov.clamp(x, -math.inf if low is None else low, math.inf if high is None else high)
    for bound, limit in ((low, ov.maximum), (high, ov.minimum)):
        x = x if bound is None else limit(*pair(x, bound)).output(0)
    return x


lowers("clamp_max")(lambda x, high: _clamp(x, None, high))
lowers("leaky_relu")(lambda x, slope=0.01: ov.prelu(x, like(slope, x)))
lowers("prelu")(lambda x, weight: ov.prelu(x, weight))


@lowers("elu")
def _elu(x: Output, alpha: float = 1.0, scale: float = 1.0, input_scale: float = 1.0) -> Any:
    if scale != 1 or input_scale != 1:
        raise Unsupported("scaled elu")
    return ov.elu(x, alpha)


@lowers("softplus")
def _softplus(x: Output, beta: float = 1, threshold: float = 20) -> Any:
    if threshold < 20:  # above 20 the two agree
        raise Unsupported("softplus with a low threshold")
    if beta == 1:
        return ov.softplus(x)
    return ov.divide(ov.softplus(ov.multiply(x, like(float(beta), x))), like(float(beta), x))


@lowers("gelu")
def _gelu(x: Output, approximate: str = "none") -> Any:
    return ov.gelu(x, "tanh" if approximate == "tanh" else "erf")


for _name, _fn in (("softmax", ov.softmax), ("log_softmax", ov.log_softmax)):

    @lowers(_name, f"_{_name}")
    def _softmax(x: Output, dim: int, dtype: Any = None, _fn: Any = _fn) -> Any:
        x = cast(x, dtype) if isinstance(dtype, torch.dtype) else x
        return _fn(x, dim % rank(x))


# ---- normalization and matrix products


def _with_epsilon(x: Output) -> Output:
    """x itself, less than a rounding away, but for normalization with the epsilon that is given."""
    return ov.add(x, np.float32(1e-30)).output(0) if forgets_epsilon(x) else x


@lowers("layer_norm")
def _layer_norm(
    x: Output, shape: Any, weight: Any = None, bias: Any = None, eps: float = 1e-5, *_: Any
) -> Any:
    dims = list(range(rank(x) - len(shape), rank(x)))
    flat = rank(x) == 4 and len(dims) == 1
    x = _with_epsilon(x)
    # MVN of a 4-D tensor over its last axis alone has no fast kernel
    y = ov.reshape(x, np.array([-1, shape[0]], np.int64), False).output(0) if flat else x
    y = ov.mvn(y, np.array([1] if flat else dims, np.int64), True, eps, "inside_sqrt")
    y = y if weight is None else ov.multiply(y, weight)
    y = y if bias is None else ov.add(y, bias)
    return ov.reshape(y, ov.shape_of(x, Type.i64), False) if flat else y


@lowers("group_norm")
def _group_norm(x: Output, groups: int, weight: Any, bias: Any, eps: float = 1e-5, *_: Any) -> Any:
    if weight is None or bias is None:
        raise Unsupported("group norm without weight")
    x = _with_epsilon(x)
    if groups == 1 and rank(x) > 2:  # without the reshape that keeps channels first in memory
        y = ov.mvn(x, np.arange(1, rank(x)), True, eps, "inside_sqrt")
        scale, shift = (ov.reshape(t, [-1] + [1] * (rank(x) - 2), False) for t in (weight, bias))
        return ov.add(ov.multiply(y, scale), shift)
    return ov.group_normalization(x, weight, bias, groups, eps)


lowers("matmul", "bmm")(lambda a, b: ov.matmul(a, b, False, False))
lowers("embedding")(lambda weight, indices, *_: ov.gather(weight, indices, scalar(0)))
