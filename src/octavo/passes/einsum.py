"""Rewrite einsum of two operands as a matrix product."""

import operator
from collections import Counter

import torch
from torch import fx

from ..graph.builder import NodeBuilder

aten = torch.ops.aten


def einsum_to_matmul(module: fx.GraphModule) -> None:
    """einsum("bqhd,bkhd->bhqk", q, k) -> permute, matmul, permute.

    Letters are of four kinds: in both operands and the result (batch), in both alone
    (contracted), in the result and the left, or the right. Anything else is left as it is.
    """
    for node in module.graph.find_nodes(op="call_function", target=aten.einsum.default):
        equation, operands = node.args[0].replace(" ", ""), node.args[1]
        inputs, _, result = equation.partition("->")
        if "->" not in equation:
            once = Counter(inputs.replace(",", ""))
            result = "".join(sorted(c for c, count in once.items() if count == 1))
        left, _, right = inputs.partition(",")
        if len(operands) == 2 and _is_product(left, right, result):
            with module.graph.inserting_before(node):
                emit = NodeBuilder(module.graph, node)
                node.replace_all_uses_with(_product(emit, left, right, result, *operands))


def _is_product(left: str, right: str, result: str) -> bool:
    words = (left, right, result)
    distinct = all(len(set(w)) == len(w) and "." not in w for w in words)
    return distinct and set(left) ^ set(right) <= set(result) <= set(left) | set(right)


def _product(
    emit: NodeBuilder, left: str, right: str, result: str, x: fx.Node, y: fx.Node
) -> fx.Node:
    both = [c for c in left if c in right]
    batch = [c for c in both if c in result]
    inner = [c for c in both if c not in result]
    rows, columns = ([c for c in w if c not in both] for w in (left, right))
    sizes = {c: emit.size(x, i) for i, c in enumerate(left)}
    sizes |= {c: emit.size(y, i) for i, c in enumerate(right) if c not in sizes}

    def grouped(node: fx.Node, have: str, *groups: list[str]) -> fx.Node:
        """The operand as batch dimensions and one dimension for each group of letters."""
        order = [*batch, *(c for g in groups for c in g)]
        node = emit(aten.permute.default, node, [have.index(c) for c in order])
        if all(len(g) == 1 for g in groups):
            return node
        shape = [sizes[c] for c in batch] + [_size(emit, [sizes[c] for c in g]) for g in groups]
        return emit(aten.reshape.default, node, shape)

    product = emit(
        aten.matmul.default, grouped(x, left, rows, inner), grouped(y, right, inner, columns)
    )
    order = batch + rows + columns
    if len(rows) != 1 or len(columns) != 1:
        product = emit(aten.reshape.default, product, [sizes[c] for c in order])
    return emit(aten.permute.default, product, [order.index(c) for c in result])


def _size(emit: NodeBuilder, sizes: list) -> int | fx.Node:
    """The product of sizes, of which some may be known only at run time."""
    total: int | fx.Node = 1
    for size in sizes:
        both_known = isinstance(total, int) and isinstance(size, int)
        total = total * size if both_known else emit(operator.mul, total, size)
    return total
