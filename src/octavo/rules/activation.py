"""Activations: fused where they follow a convolution, linear or add, else float between int8."""

from torch import nn

from ..patterns import Pattern, register_pattern
from .base import FloatBetween

# Engines apply these to a sum before it leaves the registers.
FUSED: tuple[Pattern, ...] = (
    *(nn.ReLU, nn.Hardtanh, "clamp", "clamp_min", nn.LeakyReLU, nn.PReLU),
    *(nn.Hardswish, nn.SiLU, nn.GELU, nn.Sigmoid, nn.Hardsigmoid, nn.Tanh),
)


class Activation(FloatBetween):
    """An activation on its own, or any other operator best left in float."""


class Normalization(FloatBetween):
    """Needs sums over many values: float."""

    convolutional = False


for _activation in FUSED:
    register_pattern(_activation)(Activation)
for _normalization in (nn.Softmax, nn.LayerNorm, nn.GroupNorm, "rms_norm", "log_softmax"):
    register_pattern(_normalization)(Normalization)
