"""The table's entries for interpolation and adaptive pooling.

OpenVINO's Interpolate takes the coordinates of its source from the ratio of the sizes. PyTorch
takes them from the scale factor that it is given, if any, and rounds them in float32. Where the
two differ, the result is put together by gathers, one dimension after the other.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import openvino.opset15 as ov
import torch
from openvino import Output

from .shapes import size_of, unsqueeze
from .sizes import scaled
from .table import Unsupported, lowers
from .values import axes, axis, cast, each, ints, rank

CUBIC = -0.75  # PyTorch's coefficient


@dataclass(frozen=True)
class Axis:
    """One spatial dimension: its sizes before and after, and the scale factor if one is given."""

    dim: int
    before: Any
    after: Any
    factor: float | None

    @property
    def is_known(self) -> bool:
        """Whether both sizes are numbers."""
        return isinstance(self.before, int) and isinstance(self.after, int)

    @property
    def follows_sizes(self) -> bool:
        """Whether the factor, if any, is the ratio of the sizes."""
        if self.factor is None or float(self.factor).is_integer():
            return True
        return self.is_known and self.before * self.factor == self.after

    @property
    def is_multiple(self) -> bool:
        """Whether each pixel is repeated equally often."""
        if self.factor is not None:
            return float(self.factor).is_integer() and self.factor >= 1
        return self.is_known and self.after % self.before == 0

    def positions(self) -> Output:
        """0, 1, ... of the pixels after, as float32."""
        if isinstance(self.after, int):
            return ov.constant(np.arange(self.after, dtype=np.float32)).output(0)
        zero, one = (ov.constant(np.int64(v)) for v in (0, 1))
        return cast(ov.range(zero, self.after, one, "i64").output(0), torch.float32)

    def step(self) -> Output:
        """Pixels before for each pixel after, in float32."""
        if self.factor is not None:
            return ov.constant(np.float32(1.0 / self.factor)).output(0)
        if self.is_known:
            return ov.constant(np.float32(self.before) / np.float32(self.after)).output(0)
        return ov.divide(*(cast(s, torch.float32) for s in (self.before, self.after))).output(0)

    def pixels(self, x: Output, index: Output) -> Output:
        """x at these pixels, or at the nearest that there are."""
        last = ov.subtract(cast(self.before, torch.int64), np.int64(1))
        index = ov.minimum(ov.maximum(cast(index, torch.int64), np.int64(0)), last)
        return ov.gather(x, index, axis(x, self.dim)).output(0)

    def column(self, x: Output, weights: Output) -> Output:
        """Weights of the pixels after in the shape in which x is multiplied by them."""
        behind = list(range(1, rank(x) - self.dim))
        return ov.unsqueeze(weights, np.array(behind, np.int64)).output(0) if behind else weights


def _axes(x: Output, size: Any, factors: Any, more: tuple[Any, ...]) -> list[Axis]:
    """The spatial dimensions; an overload has a list of factors, or an argument for each."""
    dims = range(2, rank(x))
    if more or not isinstance(factors, list | tuple):
        factors = (factors, *more)
    given: list[Any] = [None] * len(dims) if factors[0] is None else list(factors)
    if any(f is not None and not (isinstance(f, int | float) and f > 0) for f in given):
        raise Unsupported("interpolate by a factor that the model computes")
    before = [size_of(x, d) for d in dims]
    after = size or [scaled(b, f) for b, f in zip(before, given, strict=True)]
    return [Axis(*a) for a in zip(dims, before, after, given, strict=True)]


def _interpolate(x: Output, spatial: list[Axis], mode: str, transformation: str) -> Any:
    return ov.interpolate(
        x,
        ints([a.after for a in spatial]),
        mode,
        "sizes",
        coordinate_transformation_mode=transformation,
        nearest_mode="floor",
        cube_coeff=CUBIC,
        axes=np.array([a.dim for a in spatial], np.int64),
    )


# ---- to the nearest pixel


@lowers("upsample_nearest1d", "upsample_nearest2d", "upsample_nearest3d")
def _nearest(x: Output, size: Any, factors: Any = None, *more: Any, offset: float = 0.0) -> Any:
    spatial = _axes(x, size, factors, more)
    if all(a.is_multiple for a in spatial):
        return _interpolate(x, spatial, "nearest", "asymmetric")
    for a in spatial:
        source = ov.multiply(ov.add(a.positions(), np.float32(offset)), a.step())
        x = a.pixels(x, ov.floor(source).output(0))
    return x


lowers(*(f"_upsample_nearest_exact{d}d" for d in (1, 2, 3)))(partial(_nearest, offset=0.5))


# ---- between pixels


def _between(x: Output, spatial: list[Axis], is_cubic: bool) -> Any:
    """Weighted sums of the 2 or 4 nearest pixels, whose places the scale factors decide."""
    half = np.float32(0.5)
    for a in spatial:
        source = ov.subtract(ov.multiply(a.step(), ov.add(a.positions(), half)), half)
        source = source if is_cubic else ov.maximum(source, np.float32(0))
        left = ov.floor(source)
        rest = ov.subtract(source, left)
        taps = _cubic(rest) if is_cubic else [(0, ov.subtract(np.float32(1), rest)), (1, rest)]
        parts = (
            ov.multiply(
                a.pixels(x, ov.add(left, np.float32(k)).output(0)),
                a.column(x, weight.output(0)),
            )
            for k, weight in taps
        )
        total = next(parts)
        for part in parts:
            total = ov.add(total, part)
        x = total.output(0)
    return x


def _cubic(rest: Any) -> list[tuple[int, Any]]:
    """Each of four pixels, with its weight at a distance `rest` from the second."""
    far = (-4 * CUBIC, 8 * CUBIC, -5 * CUBIC, CUBIC)  # of a pixel between 1 and 2 away
    near = (1.0, 0.0, -(CUBIC + 3), CUBIC + 2)  # of a pixel less than 1 away

    def weight(distance: Any, polynomial: tuple[float, ...]) -> Any:
        value: Any = ov.constant(np.float32(0))
        for coefficient in polynomial[::-1]:
            value = ov.add(ov.multiply(value, distance), np.float32(coefficient))
        return value

    other = ov.subtract(np.float32(1), rest)
    one = np.float32(1)
    return [
        (-1, weight(ov.add(rest, one), far)),
        (0, weight(rest, near)),
        (1, weight(other, near)),
        (2, weight(ov.add(other, one), far)),
    ]


@lowers("upsample_linear1d", "upsample_bilinear2d", "upsample_trilinear3d")
def _linear(
    x: Output, size: Any, align: bool, factors: Any = None, *more: Any, mode: str = "linear_onnx"
) -> Any:
    spatial = _axes(x, size, factors, more)
    if align:
        return _interpolate(x, spatial, mode, "align_corners")
    if all(a.follows_sizes for a in spatial):
        return _interpolate(x, spatial, mode, "half_pixel")
    return _between(x, spatial, mode == "cubic")


lowers("upsample_bicubic2d")(partial(_linear, mode="cubic"))


# ---- adaptive pooling


@lowers("adaptive_avg_pool1d", "adaptive_avg_pool2d", "adaptive_avg_pool3d")
def _adaptive_avg_pool(x: Output, size: Any) -> Any:
    spatial = range(2, rank(x))
    size = each(size, len(spatial))
    if all(isinstance(s, int) and s == 1 for s in size):
        return ov.reduce_mean(x, axes(x, spatial), True)
    inputs = [size_of(x, d) for d in spatial]
    if not all(isinstance(s, int) for s in (*size, *inputs)):
        return _pool_to(x, size)
    if any(i % s for i, s in zip(inputs, size, strict=True)):
        return ov.adaptive_avg_pool(x, np.array(size, np.int64))
    kernel = [i // s for i, s in zip(inputs, size, strict=True)]
    zeros = [0] * len(spatial)
    return ov.avg_pool(x, kernel, zeros, zeros, kernel, False, "floor")


def _pool_to(x: Output, sizes: list[Any]) -> Any:
    """Averages over windows as even as they can be, of sizes that need not be known."""
    for dim, count in enumerate(sizes, 2):
        after, before = cast(count, torch.int64), cast(size_of(x, dim), torch.int64)
        zero, one = (ov.constant(np.int64(v)) for v in (0, 1))
        index = ov.range(zero, after, one, "i64")
        start = ov.divide(ov.multiply(index, before), after)
        top = ov.add(ov.multiply(ov.add(index, one), before), ov.subtract(after, one))
        end = ov.divide(top, after)  # rounded up
        place = unsqueeze(ov.range(zero, before, one, "i64").output(0), 1)
        inside = ov.logical_and(ov.greater_equal(place, start), ov.less(place, end))
        length = ov.convert(ov.subtract(end, start), "f32")
        weights = ov.divide(ov.convert(inside, "f32"), length)  # (before, after)
        order = [d for d in range(rank(x)) if d != dim]
        back = [*range(dim), rank(x) - 1, *range(dim, rank(x) - 1)]
        last = ov.transpose(x, np.array([*order, dim], np.int64))
        x = ov.transpose(ov.matmul(last, weights, False, False), np.array(back, np.int64)).output(0)
    return x
