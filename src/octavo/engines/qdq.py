"""Octavo's quantize and dequantize nodes, parsed once for all engines.

An engine reads these nodes by field, `q.scale` and `q.zero_point`, instead of by position.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx

from ..graph import ops
from ..graph.operators import Kind, operator_of
from ..graph.tensors import attribute, is_constant


@dataclass(frozen=True, eq=False)
class Quantize:
    """A node that quantizes its input, or one of the hints, which say how it would be quantized.

    x: the float input.
    qparams: the nodes of scale and zero_point; `scale` and `zero_point` are their tensors.
    qmin, qmax: the smallest and the largest integer.
    axis: with a scale for each index of an axis, that axis; else None.
    """

    node: fx.Node
    x: fx.Node
    qparams: tuple[fx.Node, fx.Node]
    scale: Tensor
    zero_point: Tensor
    qmin: int
    qmax: int
    dtype: torch.dtype
    axis: int | None

    @classmethod
    def of(cls, module: fx.GraphModule, node: Any) -> Quantize | None:
        """Parse a quantize node or a hint of the module's graph; None for anything else."""
        if not isinstance(node, fx.Node) or node.target not in (ops.quantize, *ops.HINTS):
            return None
        args: tuple[Any, ...] = (*node.args, None, None)
        x, scale, zero_point, qmin, qmax, dtype, axis = args[:7]
        dtype = dtype or (torch.int8 if qmin < 0 else torch.uint8)
        tensors = attribute(module, scale.target), attribute(module, zero_point.target)
        return cls(node, x, (scale, zero_point), *tensors, qmin, qmax, dtype, axis)

    @property
    def is_hint(self) -> bool:
        """Whether the node returns its input unchanged."""
        return self.node.target in ops.HINTS

    @property
    def levels(self) -> int:
        """How many integers there are."""
        return self.qmax - self.qmin + 1

    @property
    def bounds(self) -> tuple[Tensor, Tensor]:
        """The real values of the smallest and of the largest integer, in float64 on the CPU."""
        scale, zero_point = self.scale.cpu().double(), self.zero_point.cpu().double()
        return (self.qmin - zero_point) * scale, (self.qmax - zero_point) * scale

    @property
    def is_redundant_requantize(self) -> bool:
        """Whether it restores integers exactly: those that a max pool, say, only moved about."""
        if operator_of(self.x).kind is not Kind.REPEATING:
            return False
        source: Any = self.x.args[0]
        return source.target is ops.dequantize and source.args[1:3] == self.qparams


@dataclass(frozen=True, eq=False)
class Dequantize:
    """A node that dequantizes integers.

    q: the integers. qparams: the nodes of scale and zero_point; the second is None where the
        zero_point is 0. `scale` and `zero_point` are their tensors.
    axis: with a scale for each index of an axis, that axis; else None.
    """

    node: fx.Node
    q: fx.Node
    qparams: tuple[fx.Node, fx.Node | None]
    scale: Tensor
    zero_point: Tensor | None
    axis: int | None

    @classmethod
    def of(cls, module: fx.GraphModule, node: Any) -> Dequantize | None:
        """Parse a dequantize node of the module's graph; None for anything else."""
        if not isinstance(node, fx.Node) or node.target is not ops.dequantize:
            return None
        args: tuple[Any, ...] = (*node.args, None, None)
        q, scale, zero_point, axis = args[:4]
        zeros = None if zero_point is None else attribute(module, zero_point.target)
        return cls(node, q, (scale, zero_point), attribute(module, scale.target), zeros, axis)

    @property
    def is_weight(self) -> bool:
        """Whether the integers are a constant of the model."""
        return is_constant(self.q)
