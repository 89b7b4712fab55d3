"""Convolutions and transposed convolutions, with the batch norm and activation around them."""

from __future__ import annotations

from torch import nn

from ..patterns import register_pattern
from .base import Weighted
from .kinds import ACTIVATIONS

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)


class Conv(Weighted):
    """Grouped, depthwise, dilated and string-padded ones too: only the weight's axis matters."""

    convolutional = True
    accumulator = True


class ConvTranspose(Weighted):
    """Its weight is (in, out / groups, ...): groups share the scales of axis 1."""

    channel_axis = 1
    convolutional = True


for _types, _rule in ((CONVOLUTIONS, Conv), (TRANSPOSED, ConvTranspose)):
    for _type in _types:
        register_pattern(_type)(_rule)
        for _activation in ACTIVATIONS:
            register_pattern((_activation, _type))(_rule)
