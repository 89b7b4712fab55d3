"""Linear layers."""

from torch import nn

from ..patterns import register_pattern
from .activation import FUSED
from .base import Weighted


@register_pattern(nn.Linear)
class Linear(Weighted):
    """x @ weight.T + bias; the weight is (out, in)."""

    signed_input = True


for _activation in FUSED:
    register_pattern((_activation, nn.Linear))(Linear)
