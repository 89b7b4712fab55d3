"""Where a scale per channel may move: values that only pass it on, between layers that take it in.

A group is closed: all that makes one of its values can be divided by the scale, all that reads
one can be multiplied by it, and what lies between (relu, adds, pools) carries it along. Found by
following a value forwards and backwards; what meets an operator of another kind is no group.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import fx

from ..passes.batch_norm import OUTPUT_AXIS

aten = torch.ops.aten

CLAMPS = {aten.hardtanh.default, aten.clamp.default}
LAYER_NORM = aten.layer_norm.default
Axis = int | None


@dataclass
class Group:
    """Values (node -> channel axis) with one scale per channel, and the layers around them."""

    channels: int
    values: dict[fx.Node, int] = field(default_factory=dict)
    producers: dict[fx.Node, None] = field(default_factory=dict)
    consumers: dict[fx.Node, None] = field(default_factory=dict)


def find_groups(graph: fx.Graph) -> list[Group]:
    """Every closed group of a tidied graph, in its order."""
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
    """What linear layers read outside the closed groups: nothing takes the scale in before them."""
    reads = _reads(graph)
    taken = {value for group in closed for value in group.values}
    groups = []
    for value in graph.nodes:
        tensor = value.meta.get("val")
        if value in taken or value.op != "call_function" or not isinstance(tensor, torch.Tensor):
            continue
        axis = tensor.dim() - 1
        linear = [u for u in value.users if u.target is aten.linear.default]
        readers = [u for u in linear if _consumes(u, value, axis) and _alone(u, reads)]
        if readers:
            group = Group(int(tensor.shape[axis]), {value: axis}, {}, dict.fromkeys(readers))
            groups.append(group)
    return groups


def _reads(graph: fx.Graph) -> Counter[str]:
    """How many operators read each parameter; several nodes may stand for one."""
    return Counter(str(n.target) for n in graph.nodes if n.op == "get_attr" for _ in n.users)


def _fill(group: Group, start: fx.Node, axis: int, reads: Counter[str]) -> bool:
    """Gather all that shares the scale of `start`; False if something would not carry it."""
    waiting = [(start, axis)]
    while waiting:
        value, axis = waiting.pop()
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
            waiting += [(n, before) for n in carried(value)]
        else:
            return False
        for user in value.users:
            after = _axis_after(user, axis)
            if _consumes(user, value, axis) and _alone(user, reads):
                group.consumers[user] = None
            elif after is not None and value in carried(user):
                waiting.append((user, after))
            else:
                return False
    return True


def _size(node: fx.Node, axis: int) -> Any:
    value = node.meta.get("val")
    return value.shape[axis] if isinstance(value, torch.Tensor) and value.dim() > axis else None


def _alone(layer: fx.Node, reads: Counter[str]) -> bool:
    """Whether the layer's parameters are constants that no other layer reads."""
    first = 2 if layer.target is LAYER_NORM else 1
    parameters = [a for a in layer.args[first : first + 2] if a is not None]
    return all(
        isinstance(p, fx.Node) and p.op == "get_attr" and reads[str(p.target)] == 1
        for p in parameters
    )


def _made_along(node: fx.Node) -> Axis:
    """The channel axis of what a layer gives; None for what is no layer."""
    if node.target is LAYER_NORM:
        normalized: Any = node.args[1]
        return node.meta["val"].dim() - 1 if len(normalized) == 1 else None
    if node.target not in OUTPUT_AXIS or not _batched(node):
        return None
    if OUTPUT_AXIS[node.target] == 1 and node.args[6] != 1:
        return None  # groups of a transposed convolution lie along its inputs
    return node.meta["val"].dim() - 1 if node.target is aten.linear.default else 1


def _consumes(user: fx.Node, value: fx.Node, axis: int) -> bool:
    """Whether the user is a layer that reads the value along its input channels."""
    if user.target not in OUTPUT_AXIS or user.all_input_nodes.count(value) != 1:
        return False
    rank = value.meta["val"].dim()
    along = rank - 1 if user.target is aten.linear.default else 1
    return user.args[0] is value and _batched(user) and axis == along


def _batched(layer: fx.Node) -> bool:
    weight = layer.args[1]
    if not isinstance(weight, fx.Node) or weight.op != "get_attr":
        return False
    rank = layer.meta["val"].dim()
    if layer.target is aten.linear.default:
        return rank > 1
    spatial = int(layer.target._schema.name[-2])  # of "aten::conv2d"
    return rank == spatial + 2


# ---- operators that carry a scale, and where its axis is after them


def _same(node: fx.Node, axis: int) -> Axis:
    return axis


def _spatial(node: fx.Node, axis: int) -> Axis:
    return axis if axis == 1 else None


def _of_tensors(node: fx.Node, axis: int) -> Axis:
    """Both operands computed and of one rank: a constant would need the scale as well."""
    operands = node.args[:2]
    computed = all(isinstance(n, fx.Node) and n.op == "call_function" for n in operands)
    ranks = {n.meta["val"].dim() for n in operands} if computed else set()
    return axis if computed and ranks == {node.meta["val"].dim()} else None


def _mean(node: fx.Node, axis: int) -> Axis:
    rank = node.args[0].meta["val"].dim()
    dims = node.args[1] if len(node.args) > 1 else None
    if not dims or any(d % rank <= 1 for d in dims):
        return None
    return axis if axis == 1 else None


def _view(node: fx.Node, axis: int) -> Axis:
    """(batch, channels, ...) to (batch, channels, ...)."""
    before, after = node.args[0].meta["val"].shape, node.meta["val"].shape
    kept = len(after) > 1 and str(before[0]) == str(after[0]) and before[1] == after[1]
    return 1 if axis == 1 and kept else None


def _other_axis(node: fx.Node, axis: int) -> Axis:
    """Along a dimension given as args[1], which may not be the channels'."""
    rank = node.args[0].meta["val"].dim()
    dim = node.args[1] % rank if len(node.args) > 1 else 0
    removed = node.meta["val"].dim() < rank and dim < axis
    return None if dim == axis else axis - removed


CARRIES: dict[Any, Callable[[fx.Node, int], Axis]] = {
    **dict.fromkeys((aten.relu.default, aten.leaky_relu.default, aten.clone.default), _same),
    **dict.fromkeys((aten.contiguous.default, aten.dropout.default), _same),
    **dict.fromkeys(CLAMPS, _same),
    **dict.fromkeys((aten.max_pool1d.default, aten.max_pool2d.default), _spatial),
    **dict.fromkeys((aten.avg_pool1d.default, aten.avg_pool2d.default), _spatial),
    **dict.fromkeys((aten.max_pool3d.default, aten.avg_pool3d.default), _spatial),
    aten.adaptive_avg_pool1d.default: _spatial,
    aten.adaptive_avg_pool2d.default: _spatial,
    aten.adaptive_avg_pool3d.default: _spatial,
    aten.upsample_nearest2d.vec: _spatial,
    aten.upsample_bilinear2d.vec: _spatial,
    aten.add.Tensor: _of_tensors,
    aten.mean.dim: _mean,
    aten.view.default: _view,
    aten.reshape.default: _view,
    aten.flatten.using_ints: _view,
    aten.slice.Tensor: _other_axis,
    aten.select.int: _other_axis,
}


def carried(node: fx.Node) -> list[fx.Node]:
    """The inputs of an operator whose scale its output has."""
    inputs: Any = node.args[:2] if node.target is aten.add.Tensor else node.args[:1]
    return list(inputs)


def _axis_after(node: fx.Node, axis: int) -> Axis:
    """The channel axis of what an operator gives, for that of what it reads."""
    return CARRIES[node.target](node, axis) if node.target in CARRIES else None


def _axis_before(node: fx.Node, axis: int) -> Axis:
    """The reverse."""
    if node.target not in CARRIES:
        return None
    rank = carried(node)[0].meta["val"].dim()
    return next((a for a in range(rank) if _axis_after(node, a) == axis), None)
