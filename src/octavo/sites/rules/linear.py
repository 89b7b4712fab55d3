"""Linear layers, with the activation after them."""

from torch import nn

from ..patterns import register_pattern
from .base import Weighted
from .kinds import ACTIVATIONS


@register_pattern(nn.Linear)
class Linear(Weighted):
    """x @ weight.T + bias; the weight is (out, in)."""

    signed_input = True
    may_be_dynamic = True


for _activation in ACTIVATIONS:
    register_pattern((_activation, nn.Linear))(Linear)
