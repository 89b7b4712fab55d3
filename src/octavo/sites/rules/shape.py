"""Operators that move values and need more than the rule of their kind."""

from __future__ import annotations

import operator
from typing import Any

from ..patterns import register_pattern
from .base import Context, FloatOp, PassThrough
from .kinds import Layout, Repeating


@register_pattern("roll")
class Roll(FloatOp):
    """OpenVINO rolls floats only: quantized before it, what follows would read floats as well."""

    float_reason = "quantized after it"


@register_pattern(operator.getitem)
class Item(PassThrough):
    """One part of a split."""

    def unsupported_reason(self, context: Context) -> str:
        """Parts of anything but a split are not values that integers can pass through."""
        source: Any = self.operator.args[0]
        split = isinstance(context.rule_of(source), Layout)
        return "" if split else "part of what a float operator returns"


@register_pattern("pad")
@register_pattern("constant_pad_nd")
@register_pattern("reflection_pad1d")
@register_pattern("reflection_pad2d")
@register_pattern("replication_pad2d")
class Pad(Repeating):
    """0, the padding of all but a few models, is among the integers' values exactly."""

    def unsupported_reason(self, context: Context) -> str:
        """Padding with another constant would need a range that holds it."""
        values = [a for a in self.operator.args[2:] if isinstance(a, int | float)]
        return f"pads with {values[0]}, not 0" if any(values) else ""
