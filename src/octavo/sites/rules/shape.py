"""Operators that move values about: integers, scale and zero_point pass through."""

from __future__ import annotations

import operator
from typing import TYPE_CHECKING

from ..patterns import register_pattern
from .base import FloatBetween, PassThrough

if TYPE_CHECKING:
    from ...quantizer import Quantizer

LAYOUT = (
    *("view", "reshape", "_unsafe_view", "flatten", "unflatten", "squeeze", "unsqueeze"),
    *("permute", "transpose", "t", "movedim", "slice", "select", "narrow", "expand", "repeat"),
    *("split", "split_with_sizes", "chunk", "unbind", "flip", "index_select"),
    *("pixel_shuffle", "pixel_unshuffle", "channel_shuffle", "expand_as", "view_as"),
)


class Layout(PassThrough):
    """Runs on the integer tensor itself."""


for _name in LAYOUT:
    register_pattern(_name)(Layout)


@register_pattern("roll")
class Roll(FloatBetween):
    """OpenVINO rolls floats only: quantized before it, what follows would read floats as well."""

    float_reason = "quantized after it"


@register_pattern(operator.getitem)
class Item(PassThrough):
    """One part of a split."""

    def refuses(self, quantizer: Quantizer) -> str:
        """Parts of anything but a split are not values that integers can pass through."""
        whole = quantizer.rule_of(self.operator.args[0])  # type: ignore[arg-type]
        return "" if isinstance(whole, Layout) else "part of what a float operator returns"


@register_pattern("upsample_nearest1d")
@register_pattern("upsample_nearest2d")
@register_pattern("upsample_nearest3d")
class Nearest(PassThrough):
    """Repeats pixels."""

    on_integers = False


@register_pattern("pad")
@register_pattern("constant_pad_nd")
@register_pattern("reflection_pad1d")
@register_pattern("reflection_pad2d")
@register_pattern("replication_pad2d")
class Pad(PassThrough):
    """0, the padding of all but a few models, is among the integers' values exactly."""

    on_integers = False

    def refuses(self, quantizer: Quantizer) -> str:
        """Padding with another constant would need a range that holds it."""
        values = [a for a in self.operator.args[2:] if isinstance(a, int | float)]
        return f"pads with {values[0]}, not 0" if any(values) else ""
