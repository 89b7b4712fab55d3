"""Matrix products: with a constant (a linear layer), or of two activations (attention)."""

from __future__ import annotations

from typing import Any

from torch import fx

from ...graph.qparams import SYMMETRIC_ACTIVATION
from ...graph.tensors import is_constant, value_of
from ..patterns import register_pattern
from .base import Context, Rule


@register_pattern("matmul")
@register_pattern("bmm")
class Matmul(Rule):
    """Operands are int8 without zero points, the only form that is faster than float."""

    input_spec = SYMMETRIC_ACTIVATION
    signed_input = True
    convolutional = False

    def weights(self) -> dict[fx.Node, int]:
        """A constant second factor has a scale per column."""
        right: Any = self.operator.args[1]
        return {right: value_of(right).dim() - 1} if is_constant(right) else {}

    def unsupported_reason(self, context: Context) -> str:
        """No integer kernel: vectors, a constant first factor. Wrong results: a constant stack."""
        left, right = self.operator.args[:2]
        if is_constant(left):
            return "its first factor is constant"
        if min(value_of(left).dim(), value_of(right).dim()) < 2:
            return "a factor is a vector"
        if self.weights() and value_of(right).dim() > 2:
            return "its second factor is a constant stack of matrices"  # OpenVINO 2026.4: garbage
        return ""
