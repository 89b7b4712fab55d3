"""A packed projection (q, k and v from one linear layer) becomes one linear layer for each.

One tensor has one scale for q, k and v; three tensors have one each, and are as fast.
"""

import operator
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, fx

from ..graph.builder import NodeBuilder
from ..graph.names import own_path
from ..graph.operators import SEVERAL_OUTPUTS, is_operator
from ..graph.tensors import attribute, new_attribute

aten = torch.ops.aten


def split_packed_linears(module: fx.GraphModule) -> None:
    """linear -> reshape -> permute -> unbind becomes linear -> reshape -> permute for each part.

    Only where at least two of the parts are operands of matrix products.
    """
    for linear in module.graph.find_nodes(op="call_function", target=aten.linear.default):
        parts = _parts(linear)
        if sum(map(_reaches_product, parts)) < 2:
            continue
        with module.graph.inserting_before(linear):
            new = [Part(module, linear, part).build() for part in parts]
        for part, node in zip(parts, new, strict=True):
            if node is not None and None not in new:
                part.replace_all_uses_with(node)


def _parts(node: fx.Node) -> list[fx.Node]:
    """The nodes that slice a linear layer's output; none, if other operators read it too."""
    found: list[fx.Node] = []
    for user in node.users:
        if user.target in (aten.select.int, aten.slice.Tensor, operator.getitem):
            below = [user]
        else:
            below = (
                _parts(user) if is_operator(user, *SEVERAL_OUTPUTS) or user.target in MOVES else []
            )
        if not below:
            return []
        found += below
    return found


def _reaches_product(node: fx.Node) -> bool:
    """Whether a value, moved about and scaled, is an operand of a matrix product."""
    readers = [u.target for u in node.users]
    if aten.matmul.default in readers or aten.bmm.default in readers:
        return True
    passing = (*MOVES, aten.mul.Tensor, aten.expand.default)
    return any(_reaches_product(u) for u in node.users if u.target in passing)


class Part:
    """Builds one part of a linear layer's output from the linear layer's input."""

    def __init__(self, module: fx.GraphModule, linear: fx.Node, leaf: Any) -> None:
        self.module, self.linear, self.leaf = module, linear, leaf
        self.emit = NodeBuilder(module.graph, leaf)

    def build(self) -> fx.Node | None:
        """The new node; None for a way of slicing that is not supported."""
        leaf = self.leaf
        if leaf.target is aten.select.int:
            return self.take(leaf.args[0], leaf.args[1], leaf.args[2])
        split, index = leaf.args if leaf.target is operator.getitem else (leaf, -1)
        if split.target is aten.unbind.int:
            return self.take(split.args[0], split.args[1] if split.args[1:] else 0, index)
        source = split.args[0]
        if source is not self.linear:
            return None
        labels = torch.arange(source.meta["val"].shape[-1])
        rows = split.target(labels.expand([1] * (rank(source) - 1) + [-1]), *split.args[1:])
        rows = (rows if split is leaf else rows[index]).flatten()
        return self.rows(rows) if len(rows) < len(labels) else None

    def take(self, node: Any, dim: int, index: int) -> fx.Node | None:
        """`node.select(dim, index)`, with the select moved towards the linear layer."""
        move = MOVES.get(node.target)
        return move(self, node, dim % rank(node), index) if move else None

    def rows(self, labels: Tensor) -> fx.Node:
        """The linear layer with these rows of its weight alone."""
        args = [self.linear.args[0]]
        for kind, whole in zip(("weight", "bias"), self.linear.args[1:], strict=False):
            if whole is not None:
                value = attribute(self.module, whole.target)[labels]
                path = own_path("parts", self.leaf.name, kind)
                whole = new_attribute(self.module, path, value)
            args.append(whole)
        val = self.linear.meta["val"][..., : len(labels)]
        emit = NodeBuilder(self.module.graph, self.linear)
        return emit.node(aten.linear.default, tuple(args), {}, val)


def rank(node: fx.Node) -> int:
    """Number of dimensions."""
    return node.meta["val"].dim()


# How a select moves from after an operator to before it: (part, operator, dim, index) -> node.


def _permute(part: Part, node: Any, dim: int, index: int) -> fx.Node | None:
    order = list(range(rank(node)))
    if node.target is aten.permute.default:
        order = [d % rank(node) for d in node.args[1]]
    else:
        a, b = node.args[1:]
        order[a], order[b] = order[b], order[a]
    gone = order.pop(dim)
    x = part.take(node.args[0], gone, index)
    return x and part.emit(aten.permute.default, x, [d - (d > gone) for d in order])


def _unsqueeze(part: Part, node: Any, dim: int, index: int) -> fx.Node | None:
    at = node.args[1] % rank(node)
    x = part.take(node.args[0], dim - (dim > at), index) if dim != at else None
    return x and part.emit(aten.unsqueeze.default, x, at - (at > dim))


def _squeeze(part: Part, node: Any, dim: int, index: int) -> fx.Node | None:
    at = node.args[1] % rank(node.args[0])
    inner = dim + (dim >= at)
    x = part.take(node.args[0], inner, index)
    return x and part.emit(aten.squeeze.dim, x, at - (at > inner))


def _reshape(part: Part, node: Any, dim: int, index: int) -> fx.Node | None:
    """Of the linear layer's own output, when its last dimension is split."""
    x, leading = part.linear, rank(part.linear) - 1
    shape = node.meta["val"].shape
    if node.args[0] is not x or dim < leading or shape[:leading] != x.meta["val"].shape[:-1]:
        return None
    features = torch.arange(x.meta["val"].shape[-1]).reshape(shape[leading:])
    labels = features.select(dim - leading, index)
    y = part.rows(labels.flatten())
    sizes = [part.emit.size(y, d) for d in range(leading)]
    return part.emit(aten.reshape.default, y, [*sizes, *labels.shape])


MOVES: dict[Any, Callable[[Part, fx.Node, int, int], fx.Node | None]] = {
    aten.permute.default: _permute,
    aten.transpose.int: _permute,
    aten.unsqueeze.default: _unsqueeze,
    aten.squeeze.dim: _squeeze,
    aten.reshape.default: _reshape,
    aten.unflatten.int: _reshape,
}
