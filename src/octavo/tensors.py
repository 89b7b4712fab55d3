"""Tensors of a GraphModule by dotted path: "layer1.0.conv1.weight"."""

from typing import Any

import torch
from torch import Tensor, fx, nn


def attribute(module: nn.Module, path: str) -> Any:
    """What `module.a.b.c` is, for "a.b.c"."""
    *parents, name = path.split(".")
    for p in parents:
        module = getattr(module, p)
    return getattr(module, name)


def set_buffer(module: nn.Module, path: str, value: Tensor) -> None:
    """Register a buffer at a dotted path; modules on the way are made."""
    *parents, name = path.split(".")
    for p in parents:
        if not hasattr(module, p):
            module.add_module(p, nn.Module())
        module = getattr(module, p)
    module.register_buffer(name, value.detach())


def new_attribute(module: fx.GraphModule, path: str, value: Tensor) -> fx.Node:
    """A get_attr node, at the graph's insertion point, for a new buffer `path`."""
    set_buffer(module, path, value)
    node = module.graph.get_attr(path)
    node.meta["val"] = torch.empty_like(value, device="meta")
    return node
