"""Activations as uint8 alone, for runtimes that are slow with int8 ones on x86."""

from typing import Any

import torch
from torch import fx

from ..graph import ops
from ..graph.tensors import attribute, set_buffer


def make_unsigned(module: fx.GraphModule) -> None:
    """int8 activations become uint8, 128 larger, and so do their zero_points: the same numbers."""
    moved: set[str] = set()
    for node in module.graph.nodes:
        if node.target not in (ops.quantize, *ops.HINTS) or node.args[3] >= 0:
            continue
        zero_point: Any = node.args[2]
        if zero_point.target not in moved:
            moved.add(zero_point.target)
            value = attribute(module, zero_point.target) + 128
            set_buffer(module, zero_point.target, value)
        node.update_arg(3, node.args[3] + 128)
        node.update_arg(4, node.args[4] + 128)
        if node.target is ops.quantize:
            node.update_arg(5, torch.uint8)
