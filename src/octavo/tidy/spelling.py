"""Different spellings of one operator become one, so that one rule is enough."""

from typing import Any

import torch
from torch import fx

aten = torch.ops.aten


def one_spelling(module: fx.GraphModule) -> None:
    """x * sigmoid(x) -> silu(x), as many models write it; relu6(x) -> hardtanh(x, 0, 6)."""
    for node in module.graph.nodes:
        if node.target is aten.mul.Tensor and (x := _gated_by_itself(node)) is not None:
            node.target, node.args = aten.silu.default, (x,)
        elif node.target is aten.relu6.default:
            node.target, node.args = aten.hardtanh.default, (node.args[0], 0.0, 6.0)


def _gated_by_itself(node: fx.Node) -> Any:
    """x, where the node is x * sigmoid(x) and nothing else reads the sigmoid."""
    for x, gate in (node.args, node.args[::-1]):
        gated = isinstance(gate, fx.Node) and gate.target is aten.sigmoid.default
        if gated and gate.args[0] is x and len(gate.users) == 1:
            return x
    return None
