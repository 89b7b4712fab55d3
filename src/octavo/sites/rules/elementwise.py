"""add and mul of two activations, and cat."""

from __future__ import annotations

import operator

import torch
from torch import fx, nn

from ...graph.operators import is_operator
from ..patterns import register_pattern
from .base import Context, Rule, is_float


@register_pattern(operator.add)
@register_pattern((nn.ReLU, operator.add))
@register_pattern((nn.ReLU6, operator.add))
@register_pattern(operator.mul)
class Elementwise(Rule):
    """int8 between convolutions; in a transformer's residual stream float is better."""

    undemanded_reason = "not between convolutions"

    def unsupported_reason(self, context: Context) -> str:
        """An operand that is constant stays in the float arithmetic around it."""
        node = self.operator
        if len(self.activations()) != 2 or node.kwargs.get("alpha", 1) != 1:
            return "has a constant operand"
        if not all(is_float(a) for a in self.activations()):
            return "its operands are not floating point tensors"
        return ""

    def quantized_inputs(self, context: Context, output_demanded: bool) -> list[fx.Node]:
        """Both operands, if the output is read as integers and convolutions made them."""
        inputs = self.activations()
        around = output_demanded and context.convolutional.issuperset(inputs)
        return inputs if around else []

    def fused_input(self, context: Context) -> fx.Node | None:
        """Of a sum, the first operand that a convolution computes for it alone."""
        inputs = self.activations()
        if not is_operator(self.operator, "add") or inputs[0] is inputs[1]:
            return None
        for n in inputs:
            rule = context.rule_of(n)
            if rule is not None and rule.accumulator and len(n.users) == 1:
                return n
        return None


@register_pattern(torch.cat)
class Cat(Rule):
    """All inputs share one scale, so that concatenation only moves integers."""

    shares_qparams = True

    def quantized_inputs(self, context: Context, output_demanded: bool) -> list[fx.Node]:
        """All inputs, if the output is read as integers."""
        return self.activations() if output_demanded else []

    def unsupported_reason(self, context: Context) -> str:
        """Constants that are concatenated with activations have ranges of their own."""
        if any(n.op == "get_attr" for n in self.operator.all_input_nodes):
            return "a constant is joined to activations"
        return ""
