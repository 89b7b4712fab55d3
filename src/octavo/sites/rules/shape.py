"""Operators that move values and need more than the rule of their kind."""

from __future__ import annotations

import operator
from typing import Any

from ..patterns import register_pattern
from .base import Context, FloatOp, PassThrough
from .kinds import Layout, Repeating


@register_pattern("roll")
class Roll(FloatOp):
    """OpenVINO rolls only floats: the values are quantized after it, not before."""

    float_reason = "quantized after it"


@register_pattern(operator.getitem)
class Item(PassThrough):
    """One output of a split."""

    def unsupported_reason(self, context: Context) -> str:
        """Integers pass only through the outputs of a split."""
        source: Any = self.operator.args[0]
        split = isinstance(context.rule_of(source), Layout)
        return "" if split else "part of what a float operator returns"


@register_pattern("pad")
@register_pattern("constant_pad_nd")
@register_pattern("reflection_pad1d")
@register_pattern("reflection_pad2d")
@register_pattern("reflection_pad3d")
@register_pattern("replication_pad1d")
@register_pattern("replication_pad2d")
@register_pattern("replication_pad3d")
class Pad(Repeating):
    """Padding with 0, which nearly all models use, is exact in integers."""

    def unsupported_reason(self, context: Context) -> str:
        """Padding with another constant would need a range that holds it."""
        values = [a for a in self.operator.args[2:] if isinstance(a, int | float)]
        return f"pads with {values[0]}, not 0" if any(values) else ""
