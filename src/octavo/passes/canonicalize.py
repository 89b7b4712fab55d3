"""Different ways to write one operator become one, so that one rule is enough."""

from typing import Any

import torch
from torch import fx

from ..graph.builder import NodeBuilder

aten = torch.ops.aten


def canonicalize(module: fx.GraphModule) -> None:
    """x * sigmoid(x) -> silu(x); relu6(x) -> hardtanh(x, 0, 6); addmm -> linear.

    The zeros that an average pool pads with and counts are padded before it: engines that pool
    integers would pad with the integer 0, which is not the number 0.
    """
    for node in module.graph.nodes:
        if node.target is aten.mul.Tensor and (x := _gated_by_itself(node)) is not None:
            node.target, node.args = aten.silu.default, (x,)
        elif node.target is aten.addmm.default and _is_linear(node):
            bias, x, weight = node.args[:3]
            with module.graph.inserting_before(node):
                transposed = NodeBuilder(module.graph, node)(aten.t.default, weight)
            node.target, node.args, node.kwargs = aten.linear.default, (x, transposed, bias), {}
        elif node.target is aten.relu6.default:
            node.target, node.args = aten.hardtanh.default, (node.args[0], 0.0, 6.0)
        elif node.target in AVERAGES and node.args[5] and any(node.args[3]):
            spatial, padding = AVERAGES[node.target], node.args[3]
            each = padding if len(padding) == spatial else list(padding) * spatial
            pads = [p for p in each[::-1] for _ in range(2)]
            with module.graph.inserting_before(node):
                emit = NodeBuilder(module.graph, node)
                padded = emit(aten.constant_pad_nd.default, node.args[0], pads, 0.0)
            node.args = (padded, *node.args[1:3], [0] * spatial, *node.args[4:])


def _is_linear(addmm: fx.Node) -> bool:
    """Whether it is bias + x @ weight, with constants for both."""
    constants = all(addmm.args[i].op == "get_attr" for i in (0, 2))
    scales = (addmm.kwargs.get("beta", 1), addmm.kwargs.get("alpha", 1))
    return constants and scales == (1, 1) and addmm.args[0].meta["val"].dim() == 1


# operator -> spatial dimensions
AVERAGES = {aten.avg_pool1d.default: 1, aten.avg_pool2d.default: 2, aten.avg_pool3d.default: 3}


def _gated_by_itself(node: fx.Node) -> Any:
    """x, where the node is x * sigmoid(x) and nothing else reads the sigmoid."""
    for x, gate in (node.args, node.args[::-1]):
        gated = isinstance(gate, fx.Node) and gate.target is aten.sigmoid.default
        if gated and gate.args[0] is x and len(gate.users) == 1:
            return x
    return None
