"""Convolutions and transposed convolutions, with the batch norm and activation around them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch import fx, nn

from ..patterns import register_pattern
from .activation import FUSED
from .base import LoadArg, Weighted

if TYPE_CHECKING:
    from ...quantizer import Quantizer

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)


class Conv(Weighted):
    """Grouped, depthwise, dilated and string-padded ones too: only the weight's axis matters."""

    convolutional = True

    def quantize(self, quantizer: Quantizer, node: fx.Node, load_arg: LoadArg) -> Any:
        """Emit it; where the result stays float, with the integers it may be rounded to."""
        value = super().quantize(quantizer, node, load_arg)
        return quantizer.emit_roundable(node, value) if node.name in quantizer.roundable else value


class ConvTranspose(Weighted):
    """Its weight is (in, out / groups, ...): groups share the scales of axis 1."""

    channel_axis = 1
    convolutional = True


for _types, _rule in ((CONVOLUTIONS, Conv), (TRANSPOSED, ConvTranspose)):
    for _type in _types:
        register_pattern(_type)(_rule)
        for _activation in FUSED:
            register_pattern((_activation, _type))(_rule)
