"""add and mul of two activations, and cat."""

from __future__ import annotations

import operator
from typing import TYPE_CHECKING

import torch
from torch import fx, nn

from ...graph.names import operator_name
from ..patterns import register_pattern
from .base import Rule
from .conv import Conv

if TYPE_CHECKING:
    from ...quantizer import Quantizer


@register_pattern(operator.add)
@register_pattern((nn.ReLU, operator.add))
@register_pattern((nn.ReLU6, operator.add))
@register_pattern(operator.mul)
class Elementwise(Rule):
    """int8 where convolutions surround it; in a transformer's residual stream float is better."""

    idle_reason = "not between convolutions"

    def refuses(self, quantizer: Quantizer) -> str:
        """A constant operand is part of the float arithmetic around it."""
        node = self.operator
        if len(self.activations()) != 2 or node.kwargs.get("alpha", 1) != 1:
            return "has a constant operand"
        if not all(is_float(a) for a in self.activations()):
            return "its operands are not floating point tensors"
        return ""

    def wants(self, quantizer: Quantizer, output_wanted: bool) -> list[fx.Node]:
        """Both operands, if the output is read as integers and convolutions made them.

        Engines add to a convolution's sums before they round them: one that only the add reads
        (the first operand, of two) is `unrounded`.
        """
        inputs = self.activations()
        around = output_wanted and all(a.name in quantizer.convolutional for a in inputs)
        if around and operator_name(self.operator) == "add" and inputs[0] is not inputs[1]:
            sums = (n for n in inputs if isinstance(quantizer.rule_of(n), Conv))
            self.unrounded = next((n for n in sums if len(n.users) == 1), None)
        return inputs if around else []


def is_float(node: fx.Node) -> bool:
    """Whether a node's value is a floating point tensor."""
    value = node.meta.get("val")
    return isinstance(value, torch.Tensor) and value.dtype.is_floating_point


@register_pattern(torch.cat)
class Cat(Rule):
    """All inputs share one scale, so that joining them moves integers and nothing else."""

    shares_range = True

    def wants(self, quantizer: Quantizer, output_wanted: bool) -> list[fx.Node]:
        """All inputs, if the output is read as integers."""
        return self.activations() if output_wanted else []

    def refuses(self, quantizer: Quantizer) -> str:
        """Constants joined to activations have ranges of their own."""
        if any(n.op == "get_attr" for n in self.operator.all_input_nodes):
            return "a constant is joined to activations"
        return ""
