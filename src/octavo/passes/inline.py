"""Inline subgraphs of the captured model, such as autocast regions."""

import operator
from typing import Any

import torch
from torch import fx

from ..graph.tensors import attribute

WRAPPERS = {
    torch.ops.higher_order.wrap_with_autocast: 4,
    torch.ops.higher_order.wrap_with_set_grad_enabled: 1,
}  # operator -> position of the region among its arguments; the region's inputs follow


def inline_regions(module: fx.GraphModule) -> None:
    """`with torch.autocast(...)` and `with torch.no_grad()` -> the operators in them.

    The captured graph is in float32: what autocast would compute in bfloat16 is more exact.
    """
    for node in module.graph.nodes:
        position = WRAPPERS.get(node.target)
        if position is None:
            continue
        region = attribute(module, node.args[position].target)
        inputs = region.graph.find_nodes(op="placeholder")
        known: dict[fx.Node, Any] = dict(zip(inputs, node.args[position + 1 :], strict=True))
        with module.graph.inserting_before(node):
            for inner in region.graph.nodes:
                if inner.op == "output":
                    results = fx.map_arg(inner.args[0], known.__getitem__)
                elif inner.op != "placeholder":
                    known[inner] = module.graph.node_copy(inner, known.__getitem__)
        for part in list(node.users):
            if part.target is operator.getitem:
                part.replace_all_uses_with(results[part.args[1]])
                module.graph.erase_node(part)
        module.graph.erase_node(node)
