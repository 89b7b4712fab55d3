"""Shifted-window attention: add the mask without reshaping the scores (Swin, arXiv:2103.14030)."""

from typing import Any

import torch
from torch import fx

from ..graph.builder import NodeBuilder

aten = torch.ops.aten


def repeat_window_masks(module: fx.GraphModule) -> None:
    """(scores.view(n, windows, ...) + mask).view(scores.shape) -> scores + mask.repeat(n, ...).

    Scores stay between their two matrix products, as an engine's fused attention expects them.
    """
    for node in module.graph.nodes:
        if (found := _masked(node)) is not None:
            scores, mask, n = found
            with module.graph.inserting_before(node):
                emit = NodeBuilder(module.graph, node)
                one = emit(aten.select.int, mask, 0, 0)
                each = emit(aten.repeat.default, one, [n] + [1] * (one.meta["val"].dim() - 1))
                node.replace_all_uses_with(emit(aten.add.Tensor, scores, each))


def _masked(node: fx.Node) -> tuple[fx.Node, fx.Node, Any] | None:
    """The scores, the mask, and how often the mask repeats over the scores."""
    add, back = _reshape(node)
    if add is None or add.target is not aten.add.Tensor or add.kwargs or len(add.users) > 1:
        return None
    apart, mask = add.args
    scores, split = _reshape(apart)
    if scores is None or not isinstance(mask, fx.Node):
        return None
    n, windows, *inner = split
    of_scores, of_mask = (list(x.meta["val"].shape) for x in (scores, mask))
    if n == -1 or not all(type(size) is int for size in (windows, *inner, *of_scores[1:])):
        return None
    alike = inner == of_scores[1:] == back[1:] and of_mask[: -len(inner)] == [1, windows]
    return (scores, mask, n) if alike else None


def _reshape(node: Any) -> tuple[Any, list[Any]]:
    """The input of a reshape and its sizes; None for any other node."""
    if not isinstance(node, fx.Node) or node.target is not aten.reshape.default:
        return None, []
    x, sizes = node.args
    return x, list(sizes)  # type: ignore[arg-type]
