"""Tensors of a GraphModule by dotted path: "layer1.0.conv1.weight"."""

from typing import Any

import torch
from torch import Tensor, fx, nn


def attribute(module: nn.Module, path: Any) -> Any:
    """The attribute `module.a.b.c`, for the path "a.b.c", the target of a get_attr node."""
    *parents, name = str(path).split(".")
    for p in parents:
        module = getattr(module, p)
    return getattr(module, name)


def value_of(node: Any) -> Any:
    """A node's value as a tensor (or size, or list) without data, recorded at capture."""
    return node.meta["val"]


def constant(module: nn.Module, node: Any) -> Tensor:
    """The tensor that a get_attr node stands for, detached."""
    value: Tensor = attribute(module, node.target)
    return value.detach()


def is_constant(node: Any) -> bool:
    """Whether an argument is a tensor of the model: a parameter, a buffer or a folded constant."""
    return isinstance(node, fx.Node) and node.op == "get_attr"


def along(t: Tensor, axis: int | None, dim: int) -> Tensor:
    """View a 1-d tensor so that it broadcasts along `axis` of a tensor with `dim` dimensions."""
    if axis is None:
        return t
    return t.view([-1 if d == axis % dim else 1 for d in range(dim)])


def set_buffer(module: nn.Module, path: str, value: Tensor) -> None:
    """Register a buffer at a dotted path, and create missing modules on the way."""
    *parents, name = path.split(".")
    for p in parents:
        if p not in module._modules:
            module.add_module(p, nn.Module())
        module = module.get_submodule(p)
    module.register_buffer(name, value.detach())


def attribute_node(module: fx.GraphModule, path: str) -> fx.Node:
    """A get_attr node, at the graph's insertion point, for the tensor at `path`."""
    node = module.graph.get_attr(path)
    node.meta["val"] = torch.empty_like(attribute(module, path), device="meta")
    return node


def new_attribute(module: fx.GraphModule, path: str, value: Tensor) -> fx.Node:
    """A get_attr node, at the graph's insertion point, for a new buffer `path`."""
    set_buffer(module, path, value)
    return attribute_node(module, path)


def drop_unread(module: fx.GraphModule) -> None:
    """Delete the buffers that the graph no longer reads."""
    read = {str(n.target) for n in module.graph.find_nodes(op="get_attr")}
    for path, _ in list(module.named_buffers(remove_duplicate=False)):
        if path not in read:
            parent, _, name = path.rpartition(".")
            delattr(module.get_submodule(parent), name)


def tensor_bytes(module: nn.Module) -> int:
    """Bytes of all parameters and buffers, shared ones once."""
    tensors = {id(t): t for t in (*module.parameters(), *module.buffers())}
    return sum(t.numel() * t.element_size() for t in tensors.values())
