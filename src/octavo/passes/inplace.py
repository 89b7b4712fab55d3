"""Replace in-place operators by out-of-place ones, which return a new tensor."""

import torch
from torch import fx

from ..capture.inplace import mutates


def remove_in_place(module: fx.GraphModule) -> None:
    """x.relu_() -> x = relu(x): later readers of x read the new value.

    Capture has made sure that no view of x exists; writes to buffers (state) are left alone.
    """
    for node in module.graph.nodes:
        if not mutates(node) or node.args[0].op == "get_attr":
            continue
        packet, overload = node.target._schema.name.removesuffix("_"), node.target._overloadname
        out_of_place = getattr(getattr(torch.ops.aten, packet.split("::")[1], None), overload, None)
        if out_of_place is None:
            continue
        node.target = out_of_place
        node.args[0].replace_all_uses_with(node, lambda user, node=node: user > node)
