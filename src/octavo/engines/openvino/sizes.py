"""The table's entries for numbers computed from sizes, as PyTorch computes them: in float64.

OpenVINO's CPU plugin computes in float32, where 0.29 * 100 is 29 and not 28.99. A real number is
therefore kept as a function of the size it comes from. Once it is rounded to an integer, that is a
division of integers where one agrees with the function, or else a table of its values.
"""

from __future__ import annotations

import functools
import math
import operator
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
import openvino.opset15 as ov
import torch
from openvino import Output

from .table import Unsupported, lowers
from .values import cast, pair, scalar

LARGEST = 1 << 20  # size up to which a division of integers is compared with the function
TABLED = 1 << 16  # size up to which a table goes
EXACT = 1 << 24  # OpenVINO computes integers exactly up to here


@dataclass(frozen=True)
class Real:
    """A real number that depends on one size: `function`, in float64, of `size`."""

    size: Output
    function: Callable[[np.ndarray], np.ndarray]

    def rounded(self, how: Callable[[np.ndarray], np.ndarray]) -> Output:
        """The integer that `how` rounds it to."""
        whole = np.nan_to_num(how(self._values(LARGEST)), posinf=-EXACT, neginf=-EXACT)
        slope = Fraction(float(whole[-1]) / (LARGEST - 1)).limit_denominator(1000)
        p, q = slope.numerator, slope.denominator
        most = min(LARGEST, EXACT // max(p, 1))
        if p >= 0 and np.array_equal(whole[:most], np.arange(most) * p // q):
            return ov.divide(ov.multiply(self.size, scalar(p)), scalar(q)).output(0)
        return self._gathered(np.append(whole[:TABLED], -EXACT).astype(np.int64))

    def as_float(self) -> Output:
        """The number as a float32 scalar."""
        return self._gathered(np.append(self._values(TABLED), np.nan).astype(np.float32))

    def _values(self, count: int) -> np.ndarray:
        with np.errstate(all="ignore"):
            return self.function(np.arange(count, dtype=np.float64))

    def _gathered(self, table: np.ndarray) -> Output:
        """Its value in a table, which ends in what no model can take for a size or a number."""
        index = ov.minimum(self.size, scalar(len(table) - 1))
        return ov.gather(ov.constant(table), index, scalar(0)).output(0)


def scaled(size: Any, factor: float) -> Any:
    """floor(size * factor), which PyTorch computes in float64."""
    if isinstance(size, int):
        return math.floor(size * factor)
    return Real(size, lambda n: n * factor).rounded(np.floor)


# ---- entries; of numbers, where they are known


def _real(value: Any) -> Real | None:
    if isinstance(value, Real):
        return value
    return Real(value, lambda n: n) if isinstance(value, Output) else None


def _combine(python: Callable[[Any, Any], Any], a: Any, b: Any) -> Any:
    """A float of two operands, at least one of which depends on a size."""
    x, y = _real(a), _real(b)
    if x is not None and y is not None:
        if x.size != y.size:
            raise Unsupported("a fraction of two sizes")
        return Real(x.size, lambda n: python(x.function(n), y.function(n)))
    if x is not None:
        return Real(x.size, lambda n: python(x.function(n), b))
    assert y is not None
    return Real(y.size, lambda n: python(a, y.function(n)))


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float)


def _integer(python: Callable[[Any, Any], Any], lower: Callable[..., Any], a: Any, b: Any) -> Any:
    """An entry for numbers that are integers, if all operands are."""
    if _is_number(a) and _is_number(b):
        return python(a, b)
    if any(isinstance(v, float | Real) for v in (a, b)):
        return _combine(python, a, b)
    return lower(*pair(a, b))


def floor_quotient(a: Output, b: Output) -> Any:
    """a // b of integers; OpenVINO's own division of them truncates."""
    return ov.divide(ov.subtract(a, ov.floor_mod(a, b)), b)


def _extreme(two: Callable[..., Any], *values: Any) -> Any:
    if any(isinstance(v, float | Real) for v in values):
        raise Unsupported("the larger of two real numbers")
    return two(*pair(*values))


INTEGERS: dict[Any, Callable[..., Any]] = {
    operator.add: ov.add,
    operator.sub: ov.subtract,
    operator.mul: ov.multiply,
    operator.mod: ov.floor_mod,
    operator.floordiv: floor_quotient,
}
for _name, _lower in (("max", ov.maximum), ("min", ov.minimum)):
    lowers(getattr(torch, f"sym_{_name}"))(functools.partial(_extreme, _lower))
REALS = (operator.truediv, operator.pow)
ROUNDED: dict[Any, Callable[..., Any]] = {
    math.floor: np.floor,
    math.ceil: np.ceil,
    math.trunc: np.trunc,
    round: np.rint,
}
for _python, _lower in INTEGERS.items():
    lowers(_python)(functools.partial(_integer, _python, _lower))


def _fraction(python: Callable[[Any, Any], Any], a: Any, b: Any) -> Any:
    return python(a, b) if _is_number(a) and _is_number(b) else _combine(python, a, b)


def _round(
    python: Callable[[Any], Any], how: Callable[..., Any], value: Any, digits: None = None
) -> Any:
    if digits is not None:
        raise Unsupported("a size rounded to digits")
    if isinstance(value, Real):
        return value.rounded(how)
    return python(value) if isinstance(value, float) else value


for _python in REALS:
    lowers(_python)(functools.partial(_fraction, _python))
for _python, _how in ROUNDED.items():
    lowers(_python)(functools.partial(_round, _python, _how))


@lowers(torch.sym_float)
def _sym_float(value: Any) -> Any:
    return float(value) if _is_number(value) else _real(value)


@lowers(operator.neg)
def _neg(value: Any) -> Any:
    if isinstance(value, Real):
        return Real(value.size, lambda n: -value.function(n))
    return -value if _is_number(value) else ov.negative(cast(value, torch.int64))
