"""What an activation reads, for ONNX Runtime, which needs it as integers too."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, fx

from ...graph.tensors import attribute
from ..qdq import Dequantize

aten = torch.ops.aten

CONVOLUTIONS = {aten.conv1d.default, aten.conv2d.default}
ACTIVATIONS = {
    *(aten.hardswish.default, aten.silu.default, aten.gelu.default, aten.sigmoid.default),
    *(aten.hardsigmoid.default, aten.tanh.default, aten.leaky_relu.default, aten.elu.default),
}
GATES = {aten.silu.default: aten.sigmoid.default, aten.hardswish.default: aten.hardsigmoid.default}
REACH = 512  # inputs of activations are searched in [-REACH, REACH]
POINTS = 2**17 + 1  # between 0.01 and 100, neighbours differ by at most 0.2 %


def domain(activation: Any, low: float, high: float, step: float) -> tuple[float, float] | None:
    """The shortest interval to which an activation's input can be clipped.

    Clipping moves no output in [low, high] by more than a quarter of a step. None if no interval of
    inputs gives these outputs.
    """
    x = REACH * torch.linspace(-1, 1, POINTS, dtype=torch.float64) ** 3  # densest about 0
    y = activation.target(x, *activation.args[1:], **activation.kwargs)
    possible = (y > low - step) & (y < high + step)
    below = possible & _is_close_to_all_before(y, possible, step / 4)
    above = possible & _is_close_to_all_before(y.flip(0), possible.flip(0), step / 4).flip(0)
    if not below.any() or not above.any():
        return None
    start, end = int(below.nonzero().max()), int(above.nonzero().min())
    return (float(x[start]), float(x[end])) if start < end else None


def _is_close_to_all_before(y: Tensor, possible: Tensor, tolerance: float) -> Tensor:
    """For each of y: does none of the possible ones before it differ by more than tolerance?"""
    largest = torch.where(possible, y, -torch.inf).cummax(0)[0]
    smallest = torch.where(possible, y, torch.inf).cummin(0)[0]
    return (largest - tolerance <= y) & (smallest + tolerance >= y)


def reachable(module: fx.GraphModule, conv: fx.Node) -> tuple[Tensor, Tensor]:
    """The least and the most that a convolution of integers can give; padding gives zeros."""
    x, w = (Dequantize.of(module, n) for n in conv.args[:2])
    if x is None or w is None:
        return torch.tensor(-torch.inf), torch.tensor(torch.inf)
    zero = 0 if x.zero_point is None else x.zero_point
    ends = [(end - zero) * x.scale.double() for end in (0, 255)]  # of uint8
    weight = attribute(module, w.q.target).double().flatten(1) * w.scale.double()[:, None]
    up, down = weight.clamp(min=0).sum(1), weight.clamp(max=0).sum(1)
    low, high = up * ends[0] + down * ends[1], up * ends[1] + down * ends[0]
    bias: Any = (*conv.args, None)[2]
    if isinstance(bias, fx.Node):
        low, high = (end + attribute(module, bias.target).double() for end in (low, high))
    return low.min(), high.max()
