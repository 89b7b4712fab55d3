"""What is computed of joined channels moves to the layers before the concatenation."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import fx

from ..graph.builder import NodeBuilder
from ..graph.names import own_path
from ..graph.operators import Kind, operator_of
from ..graph.tensors import attribute, new_attribute
from .batch_norm import BATCH_NORMS, has_running_statistics

aten = torch.ops.aten


def move_before_cat(module: fx.GraphModule) -> None:
    """activation(batch_norm(cat(layers))) becomes cat of activation(batch_norm(layer)).

    There the batch norm can be folded into each layer, and the activation belongs to its int8
    operator. Only where each part is a layer that nothing else reads; MixNet's convolutions of
    several kernel sizes (arXiv 1907.09595) are.
    """
    for node in module.graph.nodes:
        cat: Any = node.args[0] if node.args else None
        if not _joins_layers(cat):
            continue
        if _is_constant_norm(node):
            parts = _normalized(module, node, cat)
        elif _is_activation(node):
            parts = _activated(module, node, cat)
        else:
            continue
        with module.graph.inserting_before(node):
            joined = NodeBuilder(module.graph, cat).node(
                aten.cat.default, (list(parts), 1), {}, node.meta["val"]
            )
        node.replace_all_uses_with(joined)


def _joins_layers(cat: Any) -> bool:
    """Whether it joins the channels of layers, normalized or not, each read by it alone."""
    if not isinstance(cat, fx.Node) or cat.target is not aten.cat.default or len(cat.users) != 1:
        return False
    dim: Any = cat.args[1]
    is_of_channels = dim % cat.meta["val"].dim() == 1
    return is_of_channels and all(len(p.users) == 1 and _is_layer(p) for p in _parts(cat))


def _is_layer(node: fx.Node) -> bool:
    source: Any = node.args[0] if node.target in BATCH_NORMS else node
    return operator_of(source).weight_axis is not None and source.meta["val"].dim() > 2


def _is_constant_norm(node: fx.Node) -> bool:
    if node.target is not aten.batch_norm.default or not has_running_statistics(node):
        return False
    return all(n.op == "get_attr" for n in node.all_input_nodes[1:])


def _is_activation(node: fx.Node) -> bool:
    row = operator_of(node)
    alone = len(node.all_input_nodes) == 1  # not of a weight per channel, as PReLU's
    return row.kind is Kind.ACTIVATION and row.elementwise and alone


def _activated(module: fx.GraphModule, node: fx.Node, cat: fx.Node) -> Iterator[fx.Node]:
    emit = NodeBuilder(module.graph, node)
    for part in _parts(cat):
        with module.graph.inserting_before(node):
            yield emit.node(node.target, (part, *node.args[1:]), node.kwargs, part.meta["val"])


def _normalized(module: fx.GraphModule, node: fx.Node, cat: fx.Node) -> Iterator[fx.Node]:
    """The batch norm of each part, with its own channels' parameters."""
    emit, start = NodeBuilder(module.graph, node), 0

    def of_part(name: str, source: Any, channels: slice) -> Any:
        if not isinstance(source, fx.Node):
            return source
        path = own_path("before_cat", node.name, name)
        return new_attribute(module, path, attribute(module, source.target)[channels])

    for i, part in enumerate(_parts(cat)):
        end = start + part.meta["val"].shape[1]
        with module.graph.inserting_before(node):
            channels = slice(start, end)
            sources = enumerate(node.args[1:5])
            parameters = [of_part(f"{i}_{k}", source, channels) for k, source in sources]
            args = (part, *parameters, *node.args[5:])
            yield emit.node(node.target, args, {}, part.meta["val"])
        start = end


def _parts(cat: fx.Node) -> list[fx.Node]:
    parts: Any = cat.args[0]
    return list(parts)
