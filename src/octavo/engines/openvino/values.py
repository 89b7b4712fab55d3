"""Numbers and openvino outputs as the table's entries need them: cast, paired, as vectors."""

from typing import Any

import numpy as np
import openvino.opset15 as ov
import torch
from openvino import Output, Type

from .table import Unsupported


def rank(x: Output) -> int:
    """Number of dimensions, known for every value."""
    return x.get_partial_shape().rank.get_length()


def length(x: Output, dim: int) -> int:
    """Size of a dimension; Unsupported if it is not known."""
    size = x.get_partial_shape()[dim % rank(x)]
    if size.is_dynamic:
        raise Unsupported(f"the size of dimension {dim} is not known")
    return size.get_length()


def scalar(value: Any) -> Output:
    """A number as an int64 scalar; an output as it is."""
    return value if isinstance(value, Output) else ov.constant(np.int64(value)).output(0)


def axis(x: Output, dim: int) -> Output:
    """A dimension of x, possibly negative, as an int64 scalar."""
    return scalar(dim % rank(x))


def axes(x: Output, dims: Any) -> np.ndarray:
    """Dimensions of x, possibly negative, as an int64 vector."""
    return np.array([d % rank(x) for d in dims], np.int64)


def ints(values: Any) -> Output:
    """An int64 vector of numbers and scalar outputs."""
    values = values if isinstance(values, list | tuple) else [values]
    if all(isinstance(v, int) for v in values):
        return ov.constant(np.array(values, np.int64)).output(0)
    one = np.array([1], np.int64)
    return ov.concat([ov.reshape(scalar(v), one, False).output(0) for v in values], 0).output(0)


def torch_type(x: Output) -> torch.dtype:
    """The PyTorch type of a value."""
    return torch.from_numpy(np.empty(0, x.get_element_type().to_dtype())).dtype


def element_type(dtype: torch.dtype) -> Type:
    """OpenVINO's name of a type; Unsupported for half types, which the engine does not round to."""
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
    """One number for all dimensions, or one for each, as a list of one for each."""
    value = list(value) if isinstance(value, list | tuple) else [value]
    return value * count if len(value) == 1 else value
