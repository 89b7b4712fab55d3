"""ATen operators in OpenVINO's opset: the table behind the OpenVINO engine.

Each entry takes the node's arguments with tensors as openvino outputs, numbers as they are, and
sizes that depend on the batch as scalar outputs. An entry raises Unsupported for a form it does
not know; the engine then goes through OpenVINO's own PyTorch frontend.
"""

import operator
from collections.abc import Callable
from typing import Any

import numpy as np
import openvino.opset15 as ov
import torch
from openvino import Output, Type

TABLE: dict[Any, Callable[..., Any]] = {}


class Unsupported(Exception):
    """A form of an operator that the table does not hold."""


def lowers(*names: Any) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Decorator: enter a function for ATen operators, by name, or Python functions."""

    def enter(fn: Callable[..., Any]) -> Callable[..., Any]:
        for name in names:
            TABLE[getattr(torch.ops.aten, name) if isinstance(name, str) else name] = fn
        return fn

    return enter


def rank(x: Output) -> int:
    """Number of dimensions, known for every value."""
    return x.get_partial_shape().rank.get_length()


def length(x: Output, dim: int) -> int:
    """Size of a dimension that must be known."""
    size = x.get_partial_shape()[dim % rank(x)]
    if size.is_dynamic:
        raise Unsupported(f"the size of dimension {dim} is not known")
    return size.get_length()


def ints(values: Any) -> Output:
    """An int64 vector of numbers and scalar outputs."""
    values = values if isinstance(values, list | tuple) else [values]
    if all(isinstance(v, int) for v in values):
        return ov.constant(np.array(values, np.int64)).output(0)
    parts = [v if isinstance(v, Output) else ov.constant(np.int64(v)).output(0) for v in values]
    one = np.array([1], np.int64)
    return ov.concat([ov.reshape(p, one, False).output(0) for p in parts], 0).output(0)


def torch_type(x: Output) -> torch.dtype:
    """The PyTorch type of a value."""
    return torch.from_numpy(np.empty(0, x.get_element_type().to_dtype())).dtype


def element_type(dtype: torch.dtype) -> Type:
    """OpenVINO's name of a type; not of half types, whose rounding the engine leaves out."""
    if dtype in (torch.float16, torch.bfloat16):
        raise Unsupported(f"conversion to {dtype}")
    return Type(np.dtype(str(dtype).removeprefix("torch.")))


def cast(value: Any, dtype: torch.dtype) -> Output:
    """A number or an output in a PyTorch type."""
    kind = element_type(dtype)
    if not isinstance(value, Output):
        return ov.constant(np.array(value, kind.to_dtype())).output(0)
    if value.get_element_type() == kind:
        return value
    return ov.convert(value, kind).output(0)


def like(value: Any, x: Output) -> Output:
    """A number as a scalar of x's type; an output as it is."""
    if isinstance(value, Output):
        if value.get_element_type() != x.get_element_type():
            raise Unsupported("operands of different types")
        return value
    if x.get_element_type().is_integral() and isinstance(value, float):
        raise Unsupported("an integer tensor and a float number")
    return cast(value, torch_type(x))


def pair(a: Any, b: Any) -> tuple[Output, Output]:
    """Two operands, of which one may be a number, as outputs of the type PyTorch computes in."""
    examples = (
        torch.empty([1] * rank(v), dtype=torch_type(v)) if isinstance(v, Output) else v
        for v in (a, b)
    )
    dtype = torch.result_type(*examples)
    return cast(a, dtype), cast(b, dtype)


def each(value: Any, count: int) -> list[int]:
    """One number for all dimensions, or one for each."""
    value = list(value) if isinstance(value, list | tuple) else [value]
    return value * count if len(value) == 1 else value


# ---- arithmetic


@lowers("add")
def _add(a, b, alpha=1):
    a, b = pair(a, b)
    return ov.add(a, b if alpha == 1 else ov.multiply(b, like(alpha, b)))


@lowers("sub")
def _sub(a, b, alpha=1):
    a, b = pair(a, b)
    return ov.subtract(a, b if alpha == 1 else ov.multiply(b, like(alpha, b)))


@lowers("rsub")
def _rsub(a, b, alpha=1):
    return _sub(like(b, a), a, alpha)


@lowers("div")
def _div(a, b, rounding_mode=None):
    a, b = pair(a, b)
    if rounding_mode == "floor":
        return _floor_divide(a, b)
    if rounding_mode is not None:
        raise Unsupported(f"division rounded by {rounding_mode}")
    if a.get_element_type().is_integral():
        a, b = cast(a, torch.float32), cast(b, torch.float32)
    return ov.divide(a, b)


@lowers("floor_divide", operator.floordiv)
def _floor_divide(a, b):
    if isinstance(a, int) and isinstance(b, int):
        return a // b
    a, b = pair(a, b)
    if a.get_element_type().is_real():
        return ov.floor(ov.divide(a, b))
    return ov.divide(ov.subtract(a, ov.floor_mod(a, b)), b)  # divide truncates integers


BINARY = {
    "mul": ov.multiply,
    "pow": ov.power,
    "maximum": ov.maximum,
    "minimum": ov.minimum,
    "remainder": ov.floor_mod,
    "eq": ov.equal,
    "ne": ov.not_equal,
    "lt": ov.less,
    "le": ov.less_equal,
    "gt": ov.greater,
    "ge": ov.greater_equal,
    "bitwise_and": ov.bitwise_and,
    "bitwise_or": ov.bitwise_or,
    "bitwise_xor": ov.bitwise_xor,
    "__and__": ov.bitwise_and,
    "__or__": ov.bitwise_or,
    "__xor__": ov.bitwise_xor,
}
LOGICAL = {
    "logical_and": ov.logical_and,
    "logical_or": ov.logical_or,
    "logical_xor": ov.logical_xor,
    "logical_not": ov.logical_not,
}
UNARY = {
    "relu": ov.relu,
    "sigmoid": ov.sigmoid,
    "tanh": ov.tanh,
    "hardswish": ov.hswish,
    "hardsigmoid": ov.hsigmoid,
    "silu": ov.swish,
    "mish": ov.mish,
    "exp": ov.exp,
    "log": ov.log,
    "sqrt": ov.sqrt,
    "neg": ov.negative,
    "abs": ov.absolute,
    "floor": ov.floor,
    "ceil": ov.ceiling,
    "bitwise_not": ov.bitwise_not,
    "erf": ov.erf,
    "sin": ov.sin,
    "cos": ov.cos,
}
for _name, _fn in BINARY.items():
    lowers(_name)(lambda a, b, _fn=_fn: _fn(*pair(a, b)))
for _name, _fn in UNARY.items():
    lowers(_name)(lambda x, _fn=_fn: _fn(x))
for _name, _fn in LOGICAL.items():
    lowers(_name)(lambda *values, _fn=_fn: _fn(*(cast(v, torch.bool) for v in values)))
for _fn, _python in (
    (ov.add, operator.add),
    (ov.subtract, operator.sub),
    (ov.multiply, operator.mul),
    (ov.floor_mod, operator.mod),
):

    @lowers(_python)
    def _size(a, b, _fn=_fn, _python=_python):
        if isinstance(a, int) and isinstance(b, int):
            return _python(a, b)
        return _fn(*pair(a, b))


@lowers("rsqrt")
def _rsqrt(x):
    return ov.power(x, like(-0.5, x))


@lowers("reciprocal")
def _reciprocal(x):
    return ov.power(x, like(-1.0, x))


# ---- types


@lowers("to", "_to_copy", "type_as")
def _to(x, *given, dtype=None, **_):
    for value in given:  # among a device and flags; type_as and to.other have a tensor
        dtype = torch_type(value) if isinstance(value, Output) else dtype
        dtype = value if isinstance(value, torch.dtype) else dtype
    return x if dtype is None else cast(x, dtype)


# ---- activations


@lowers("clamp", "hardtanh", "clamp_min", "clamp_max")
def _clamp(x, low=None, high=None):
    if isinstance(low, Output) or isinstance(high, Output):
        for bound, limit in ((low, ov.maximum), (high, ov.minimum)):
            x = x if bound is None else limit(x, like(bound, x)).output(0)
        return x
    largest = float(np.finfo(np.float32).max)
    return ov.clamp(x, -largest if low is None else low, largest if high is None else high)


TABLE[torch.ops.aten.clamp_max] = lambda x, high: _clamp(x, None, high)


@lowers("leaky_relu")
def _leaky_relu(x, slope=0.01):
    return ov.prelu(x, like(slope, x))


@lowers("prelu")
def _prelu(x, weight):
    return ov.prelu(x, weight)


@lowers("elu")
def _elu(x, alpha=1.0, scale=1.0, input_scale=1.0):
    if scale != 1 or input_scale != 1:
        raise Unsupported("scaled elu")
    return ov.elu(x, alpha)


@lowers("softplus")
def _softplus(x, beta=1, threshold=20):
    if beta != 1:
        raise Unsupported("softplus with beta")
    return ov.softplus(x)


@lowers("gelu")
def _gelu(x, approximate="none"):
    return ov.gelu(x, "tanh" if approximate == "tanh" else "erf")


@lowers("softmax", "_softmax")
def _softmax(x, dim, dtype=None):
    return ov.softmax(x, dim % rank(x))


@lowers("log_softmax", "_log_softmax")
def _log_softmax(x, dim, dtype=None):
    return ov.log_softmax(x, dim % rank(x))


# ---- normalization and attention


@lowers("layer_norm")
def _layer_norm(x, shape, weight=None, bias=None, eps=1e-5, cudnn=True):
    axes = list(range(rank(x) - len(shape), rank(x)))
    flat = rank(x) == 4 and len(axes) == 1
    # MVN of a 4-D tensor over its last axis alone has no fast kernel
    y = ov.reshape(x, np.array([-1, shape[0]], np.int64), False).output(0) if flat else x
    y = ov.mvn(y, np.array([1] if flat else axes, np.int64), True, eps, "inside_sqrt")
    y = y if weight is None else ov.multiply(y, weight)
    y = y if bias is None else ov.add(y, bias)
    return ov.reshape(y, ov.shape_of(x, Type.i64), False) if flat else y


@lowers("group_norm")
def _group_norm(x, groups, weight=None, bias=None, eps=1e-5, cudnn=True):
    if weight is None or bias is None:
        raise Unsupported("group norm without weight")
    return ov.group_normalization(x, weight, bias, groups, eps)


@lowers("matmul", "bmm")
def _matmul(a, b):
    return ov.matmul(a, b, False, False)


@lowers("embedding")
def _embedding(weight, indices, *_):
    return ov.gather(weight, indices, ov.constant(np.int64(0)))
