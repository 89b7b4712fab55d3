"""Scale and zero_point: what an integer means. real = (integer - zero_point) * scale."""

from dataclasses import dataclass

import torch
from torch import Tensor

# Keeps x / scale finite in float32 for any x a network produces, and is far below any scale
# that means something; a coarser floor would turn tensors of tiny values into zeros.
SMALLEST_SCALE = 1e-20


@dataclass(frozen=True)
class QSpec:
    """The integers a value may take: their bounds, their dtype and whether zero_point is 0.

    >>> ACTIVATION.qmin, ACTIVATION.qmax, ACTIVATION.dtype
    (0, 255, torch.uint8)
    """

    qmin: int
    qmax: int
    dtype: torch.dtype
    symmetric: bool = False

    @property
    def bits(self) -> int:
        """Width that the integers need, of the 8 that are stored."""
        return (self.qmax - self.qmin).bit_length()


ACTIVATION = QSpec(0, 255, torch.uint8)
# Matrix products of two activations (attention) are fast only without zero points.
SYMMETRIC_ACTIVATION = QSpec(-127, 127, torch.int8, symmetric=True)
# -128 is left out, so that -w is representable whenever w is.
WEIGHT = QSpec(-127, 127, torch.int8, symmetric=True)
REDUCED_WEIGHT = QSpec(-63, 63, torch.int8, symmetric=True)  # see cpu.saturates_pairs


@dataclass(frozen=True)
class QParams:
    """scale (float32) and zero_point (int32), 0-d for one pair per tensor, 1-d along `axis`."""

    scale: Tensor
    zero_point: Tensor
    spec: QSpec
    axis: int | None = None

    @property
    def asymmetry(self) -> float:
        """How many times wider the range would be if it were symmetric: 1 to 2."""
        low, high = self.range
        return 2 * max(-low, high) / (high - low)

    @property
    def range(self) -> tuple[float, float]:
        """Smallest and largest real number the integers reach (over all channels)."""
        low = (self.spec.qmin - self.zero_point) * self.scale
        high = (self.spec.qmax - self.zero_point) * self.scale
        return float(low.min()), float(high.max())


def choose_qparams(
    low: Tensor | float, high: Tensor | float, spec: QSpec, axis: int | None = None
) -> QParams:
    """The scale and zero_point that spread [low, high] over the integers of `spec`.

    The range is first widened to contain 0, so that 0 (padding, relu) is represented exactly. An
    empty range (all values 0) yields scale 1, zero_point 0.

    >>> p = choose_qparams(-1.0, 3.0, ACTIVATION)
    >>> round(p.scale.item(), 5), p.zero_point.item()
    (0.01569, 64)
    """
    low = torch.as_tensor(low, dtype=torch.float64).clamp(max=0)
    high = torch.as_tensor(high, dtype=torch.float64).clamp(min=0)
    if spec.symmetric:
        high = torch.maximum(-low, high)
        low = -high
    empty = low == high
    scale = ((high - low) / (spec.qmax - spec.qmin)).clamp(min=SMALLEST_SCALE)
    scale = torch.where(empty, 1.0, scale)
    zero_point = (spec.qmin - torch.round(low / scale)).clamp(spec.qmin, spec.qmax)
    if spec.symmetric:
        zero_point = torch.zeros_like(zero_point)
    zero_point = torch.where(empty, max(spec.qmin, 0), zero_point)
    return QParams(scale.float(), zero_point.to(torch.int32), spec, axis)


def weight_qparams(
    weight: Tensor, axis: int, spec: QSpec = WEIGHT, per_channel: bool = True
) -> QParams:
    """Symmetric qparams of a weight, one scale per index of `axis` (its output channels).

    Unless `per_channel`, all of these scales are the largest of them.
    """
    largest = weight.detach().abs().amax([d for d in range(weight.dim()) if d != axis])
    if not per_channel and len(largest):
        largest = largest.amax().expand_as(largest).contiguous()
    return choose_qparams(-largest, largest, spec, axis)
