"""The LSTM's rule: its products in integers where asked for, its cells in float."""

from __future__ import annotations

from typing import Any

from torch import fx, nn

from ..patterns import register_pattern
from .base import Context, Emitter
from .kinds import Recurrent


@register_pattern(nn.LSTM)
class Lstm(Recurrent):
    """Float with int8 weights; one layer with static activations multiplies integers.

    Its inputs and its state h are rounded, each to a range of its own.
    """

    precision = "int8"

    def activations(self) -> list[fx.Node]:
        """args[0]: its first states are rounded as its outputs are."""
        return [self.operator.args[0]]  # type: ignore[list-item]

    def outputs(self) -> list[fx.Node]:
        """Its outputs, which are its states after each step."""
        return [n for n in self.operator.users if n.args[1] == 0]

    def quantized_inputs(self, context: Context, output_demanded: bool) -> list[fx.Node]:
        """Its input and its outputs, if integer kernels can run it: one layer, no projection."""
        given: Any = self.operator.args
        weights, has_biases, layers, bidirectional = given[2], given[3], given[4], given[7]
        directions = 1 + bool(bidirectional)
        is_plain = layers == 1 and len(weights) == directions * (4 if has_biases else 2)
        if not is_plain or len(self.weights()) != 2 * directions or not self.outputs():
            return []
        return [*self.activations(), *self.outputs()]

    def emit(self, emitter: Emitter) -> Any:
        """`octavo::rounded_lstm` on integers; the float layer where it reads none."""
        on_integers = emitter.reads_integers(self)
        return emitter.emit_rounded_lstm(self) if on_integers else emitter.emit(self)
