"""In-place operators become their twins that return a new tensor."""

import torch
from torch import fx

from ..capture.inplace import mutates


def functional(module: fx.GraphModule) -> None:
    """x.relu_() -> x = relu(x): later readers of x read the new value.

    Capture has made sure that no view of x exists; writes to buffers (state) are left alone.
    """
    for node in module.graph.nodes:
        if not mutates(node) or node.args[0].op == "get_attr":
            continue
        packet, overload = node.target._schema.name.removesuffix("_"), node.target._overloadname
        twin = getattr(getattr(torch.ops.aten, packet.split("::")[1], None), overload, None)
        if twin is None:
            continue
        node.target = twin
        node.args[0].replace_all_uses_with(node, lambda user, node=node: user > node)
