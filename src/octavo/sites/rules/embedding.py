"""Embeddings: tables whose rows are stored as int8, with a scale each."""

from __future__ import annotations

from typing import Any

from torch import fx, nn

from ...graph.tensors import is_constant
from ..patterns import register_pattern
from .base import Emitter, FloatOp


@register_pattern("embedding_bag")
class Table(FloatOp):
    """Reads rows of args[0], as floats."""

    stores_int8 = True
    float_reason = "reads rows of a table"
    convolutional = False

    def weights(self) -> dict[fx.Node, int]:
        """The table, with a scale for each row."""
        table: Any = self.operator.args[0]
        return {table: 0} if is_constant(table) else {}


@register_pattern(nn.Embedding)
class Embedding(Table):
    """Gathers integers, and dequantizes only what it gathered."""

    def emit(self, emitter: Emitter) -> Any:
        """Gather rows and their scales."""
        return emitter.emit_rows(self)
