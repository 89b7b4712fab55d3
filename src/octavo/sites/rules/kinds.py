"""The rule of each kind of operator: every row of the operator table with a kind gets it."""

from __future__ import annotations

from typing import Any

from torch import fx

from ...graph.operators import OPERATORS, Kind
from ...graph.tensors import is_constant, value_of
from ..patterns import Pattern, register_pattern
from .base import Context, FloatOp, PassThrough, Rule, is_float


class Activation(FloatOp):
    """An activation on its own; after a convolution or linear layer it belongs to that site."""


class Normalization(FloatOp):
    """Needs sums over many values: float."""

    convolutional = False


class Recurrent(FloatOp):
    """Rounding errors would accumulate in the state from step to step: float, on int8 weights."""

    convolutional = False
    stores_int8 = True
    float_reason = "rounding errors would accumulate in its state"

    def weights(self) -> dict[fx.Node, int]:
        """The constant matrices of all layers and directions, with a scale for each row."""
        found = [n for n in self.operator.all_input_nodes if is_constant(n)]
        return {n: 0 for n in found if value_of(n).dim() == 2 and _is_parameter(self.operator, n)}


class Layout(PassThrough):
    """Moves values and runs on the integer tensor itself."""


class Repeating(PassThrough):
    """Repeats or selects values, but PyTorch has no kernel for integers."""

    on_integers = False


class Reduction(Rule):
    """Reads integers, computes in float, and its output has a range of its own."""

    def activations(self) -> list[fx.Node]:
        """The first input only: the others may be computed sizes."""
        return super().activations()[:1]

    def unsupported_reason(self, context: Context) -> str:
        """Reductions of integer tensors need no quantization."""
        floats = all(map(is_float, self.activations()))
        return "" if floats else "its input is not a floating point tensor"

    def quantized_inputs(self, context: Context, output_demanded: bool) -> list[fx.Node]:
        """Its input, if the output is read as integers."""
        return self.activations() if output_demanded else []


def _is_parameter(layer: fx.Node, tensor: fx.Node) -> bool:
    """Whether a tensor is a weight of a recurrent layer, not its input or first state."""
    parameters: Any = layer.args[2]
    return tensor in parameters


RULES: dict[Kind, type[Rule]] = {
    Kind.ACTIVATION: Activation,
    Kind.NORMALIZATION: Normalization,
    Kind.RECURRENT: Recurrent,
    Kind.LAYOUT: Layout,
    Kind.REPEATING: Repeating,
    Kind.REDUCTION: Reduction,
}

# Activations that engines fuse into the layer before them.
ACTIVATIONS: tuple[Pattern, ...] = tuple(
    row.pattern for row in OPERATORS.values() if row.kind is Kind.ACTIVATION
)

for _row in OPERATORS.values():
    if _row.kind is not None:
        register_pattern(_row.pattern)(RULES[_row.kind])
