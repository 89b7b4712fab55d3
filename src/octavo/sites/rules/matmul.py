"""Matrix products: with a constant they are a linear layer, of two activations attention."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import fx

from ...graph.qparams import SYMMETRIC_ACTIVATION
from ..patterns import register_pattern
from .base import Rule

if TYPE_CHECKING:
    from ...quantizer import Quantizer


@register_pattern("matmul")
@register_pattern("bmm")
class Matmul(Rule):
    """Operands are int8 without zero points, the only form that is faster than float."""

    input_spec = SYMMETRIC_ACTIVATION
    signed_input = True
    convolutional = False

    def weights(self) -> dict[fx.Node, int]:
        """A constant second factor has a scale per column."""
        right = self.operator.args[1]
        constant = isinstance(right, fx.Node) and right.op == "get_attr"
        return {right: right.meta["val"].dim() - 1} if constant else {}  # type: ignore

    def refuses(self, quantizer: Quantizer) -> str:
        """Vectors and a constant first factor have no integer kernel; a stack has a wrong one."""
        left, right = self.operator.args[:2]
        if left.op == "get_attr":  # type: ignore[union-attr]
            return "its first factor is constant"
        if min(left.meta["val"].dim(), right.meta["val"].dim()) < 2:  # type: ignore[union-attr]
            return "a factor is a vector"
        if self.weights() and right.meta["val"].dim() > 2:  # type: ignore[union-attr]
            return "its second factor is a constant stack of matrices"  # OpenVINO 2026.4: garbage
        return ""
