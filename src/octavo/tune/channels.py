"""Where a scale per channel may move: values that pass it on, between layers that absorb it.

A group is closed: every layer that produces one of its values can be divided by the scale, every
layer that reads one can be multiplied by it, and the operators between (relu, adds, pools) pass it
on. Groups are found by following a value forwards and backwards; a value that meets any other
operator forms no group.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import fx

from ..graph.operators import Axis, has_batch, is_operator, operator_of, output_axis
from ..graph.tensors import is_constant, value_of


@dataclass
class Group:
    """Values (node -> channel axis) with one scale per channel, and the layers around them."""

    channels: int
    values: dict[fx.Node, int] = field(default_factory=dict)
    producers: dict[fx.Node, None] = field(default_factory=dict)
    consumers: dict[fx.Node, None] = field(default_factory=dict)


def find_groups(graph: fx.Graph) -> list[Group]:
    """Every closed group of a graph, in its order."""
    reads = _reads(graph)
    seen: set[fx.Node] = set()
    groups = []
    for node in graph.nodes:
        axis = _made_along(node)
        if axis is None or node in seen:
            continue
        group = Group(int(node.meta["val"].shape[axis]))
        closed = _fill(group, node, axis, reads)
        seen |= group.values.keys()
        if closed and group.consumers:
            groups.append(group)
    return groups


def find_open_groups(graph: fx.Graph, closed: list[Group]) -> list[Group]:
    """Inputs of linear layers outside the closed groups: no layer before them absorbs the scale."""
    reads = _reads(graph)
    taken = {value for group in closed for value in group.values}
    groups = []
    for value in graph.nodes:
        tensor = value.meta.get("val")
        if value in taken or value.op != "call_function" or not isinstance(tensor, torch.Tensor):
            continue
        axis = tensor.dim() - 1
        linear = [u for u in value.users if is_operator(u, "linear")]
        readers = [u for u in linear if _consumes(u, value, axis) and _alone(u, reads)]
        if readers:
            group = Group(int(tensor.shape[axis]), {value: axis}, {}, dict.fromkeys(readers))
            groups.append(group)
    return groups


def _reads(graph: fx.Graph) -> Counter[str]:
    """How many operators read each parameter; several nodes may stand for one."""
    return Counter(str(n.target) for n in graph.nodes if n.op == "get_attr" for _ in n.users)


def _fill(group: Group, start: fx.Node, axis: int, reads: Counter[str]) -> bool:
    """Gather all values that share the scale of `start`; False if an operator cannot pass it on."""
    pending = [(start, axis)]
    while pending:
        value, axis = pending.pop()
        if value in group.values:
            if group.values[value] != axis:
                return False
            continue
        if value.op != "call_function" or _size(value, axis) != group.channels:
            return False
        group.values[value] = axis
        before = _axis_before(value, axis)
        if _made_along(value) == axis and _alone(value, reads):
            group.producers[value] = None
        elif before is not None:
            pending += [(n, before) for n in carried(value)]
        else:
            return False
        for user in value.users:
            after = _axis_after(user, axis)
            if _consumes(user, value, axis) and _alone(user, reads):
                group.consumers[user] = None
            elif after is not None and value in carried(user):
                pending.append((user, after))
            else:
                return False
    return True


def _size(node: fx.Node, axis: int) -> Any:
    value = node.meta.get("val")
    return value.shape[axis] if isinstance(value, torch.Tensor) and value.dim() > axis else None


def _alone(layer: fx.Node, reads: Counter[str]) -> bool:
    """Whether the layer's parameters are constants that no other layer reads."""
    first = 2 if is_operator(layer, "layer_norm") else 1
    parameters = [a for a in layer.args[first : first + 2] if a is not None]
    return all(
        isinstance(p, fx.Node) and p.op == "get_attr" and reads[str(p.target)] == 1
        for p in parameters
    )


def _made_along(node: fx.Node) -> Axis:
    """The channel axis of a layer's output; None for any other operator."""
    if is_operator(node, "layer_norm"):
        normalized: Any = node.args[1]
        return value_of(node).dim() - 1 if len(normalized) == 1 else None
    axis = operator_of(node).weight_axis
    if axis is None or not _is_batched_layer(node):
        return None
    if axis == 1 and node.args[6] != 1:
        return None  # groups of a transposed convolution lie along its inputs
    return output_axis(node)


def _consumes(user: fx.Node, value: fx.Node, axis: int) -> bool:
    """Whether the user is a layer that reads the value along its input channels."""
    layer = operator_of(user).weight_axis is not None
    if not layer or user.all_input_nodes.count(value) != 1:
        return False
    along = value_of(value).dim() - 1 if is_operator(user, "linear") else 1
    return user.args[0] is value and _is_batched_layer(user) and axis == along


def _is_batched_layer(layer: fx.Node) -> bool:
    return is_constant(layer.args[1]) and has_batch(layer)


# ---- operators that pass a scale on, and its axis after them


def carried(node: fx.Node) -> list[fx.Node]:
    """The inputs that have the same scale per channel as the operator's output."""
    inputs: Any = node.args[: 2 if is_operator(node, "add") else 1]
    return list(inputs)


def _axis_after(node: fx.Node, axis: int) -> Axis:
    """The channel axis of an operator's output, from that of its input."""
    channels = operator_of(node).channels
    return channels(node, axis) if channels else None


def _axis_before(node: fx.Node, axis: int) -> Axis:
    """The channel axis of an operator's input, from that of its output."""
    if operator_of(node).channels is None:
        return None
    rank = value_of(carried(node)[0]).dim()
    return next((a for a in range(rank) if _axis_after(node, a) == axis), None)
