"""Rewrite scaled_dot_product_attention as two matrix products, which can become int8."""

import math
from typing import Any

import torch
from torch import fx

from ..graph.builder import NodeBuilder

aten = torch.ops.aten


def expand_attention(module: fx.GraphModule) -> None:
    """softmax(q @ k.T * scale + mask) @ v, with groups of heads and a causal mask spelt out.

    A key that a mask blocks has exactly no weight; a query whose keys are all blocked yields
    zeros, as PyTorch's own kernel does.
    """
    for node in module.graph.nodes:
        if node.target is aten.scaled_dot_product_attention.default and _has_scale(node):
            with module.graph.inserting_before(node):
                node.replace_all_uses_with(_expanded(NodeBuilder(module.graph, node), node))
            module.graph.erase_node(node)  # dropout makes it impure: never removed as dead code


def _has_scale(node: fx.Node) -> bool:
    """Whether the scale is a number: by default it is made of the width, which may be dynamic."""
    query: Any = node.args[0] if node.args else node.kwargs["query"]
    return node.kwargs.get("scale") is not None or type(query.meta["val"].shape[-1]) is int


def _expanded(emit: NodeBuilder, node: fx.Node) -> fx.Node:
    names = [a.name for a in node.target._schema.arguments]  # type: ignore[union-attr]
    given = dict(zip(names, node.args, strict=False)) | node.kwargs
    q, k, v = (given[name] for name in ("query", "key", "value"))
    mask, causal, scale = (given.get(name) for name in ("attn_mask", "is_causal", "scale"))
    heads = q.meta["val"].dim() > 3 and q.meta["val"].shape[-3]
    if given.get("enable_gqa") and heads != k.meta["val"].shape[-3]:
        k, v = (_repeat_heads(emit, x, heads) for x in (k, v))
    scores = emit(aten.matmul.default, q, emit(aten.transpose.int, k, -2, -1))
    width = q.meta["val"].shape[-1]
    scores = emit(aten.mul.Tensor, scores, 1 / math.sqrt(width) if scale is None else scale)
    if causal:
        mask = _causal(emit, q, k)
    if mask is None:
        return emit(aten.matmul.default, emit(aten.softmax.int, scores, -1), v)
    lowest = torch.finfo(scores.meta["val"].dtype).min
    if mask.meta["val"].dtype == torch.bool:
        blocked = emit(aten.logical_not.default, mask)
    else:
        scores = emit(aten.add.Tensor, scores, mask)
        blocked = emit(aten.eq.Scalar, mask, -math.inf)
    scores = emit(aten.masked_fill.Scalar, scores, blocked, lowest)
    weights = emit(aten.masked_fill.Scalar, emit(aten.softmax.int, scores, -1), blocked, 0.0)
    return emit(aten.matmul.default, weights, v)


def _repeat_heads(emit: NodeBuilder, x: fx.Node, heads: int) -> fx.Node:
    """Every head of keys or values for each of its group of queries."""
    own = x.meta["val"].shape[-3]
    each = emit(aten.unsqueeze.default, x, 2)
    each = emit(aten.expand.default, each, [-1, -1, heads // own, -1, -1])
    sizes = [emit.size(x, 0), heads, emit.size(x, 2), emit.size(x, 3)]
    return emit(aten.reshape.default, each, sizes)


def _causal(emit: NodeBuilder, q: fx.Node, k: fx.Node) -> fx.Node:
    """Which keys each query sees: those that do not come after it."""
    rows, columns = (emit.size(x, -2) for x in (q, k))
    device = q.meta["val"].device
    row = emit(aten.unsqueeze.default, emit(aten.arange.default, rows, device=device), -1)
    return emit(aten.ge.Tensor, row, emit(aten.arange.default, columns, device=device))
