"""Activations, fused where they follow a convolution or linear; what else is float between int8."""

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


class Recurrent(FloatBetween):
    """Rounding would add up in the state from step to step: float."""

    convolutional = False
    float_reason = "its state adds up rounding from step to step"


for _activation in FUSED:
    register_pattern(_activation)(Activation)
for _normalization in (nn.Softmax, nn.LayerNorm, nn.GroupNorm, "rms_norm", "log_softmax"):
    register_pattern(_normalization)(Normalization)
for _recurrent in (nn.LSTM, nn.GRU, "rnn_tanh", "rnn_relu"):
    register_pattern(_recurrent)(Recurrent)
