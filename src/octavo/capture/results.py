"""Outputs that are not tensors: None, numbers and strings are kept by the signature."""

from __future__ import annotations

import dataclasses
from typing import Any

import torch
from torch import Tensor, fx

from .signature import Signature


def plain_results(module: fx.GraphModule, signature: Signature) -> tuple[fx.GraphModule, Signature]:
    """A graph that returns tensors only; the signature puts the other results in their places.

    A size becomes an int64 tensor, which the signature turns back into a number. The module is
    changed in place. Files of older versions have graphs with such outputs.
    """
    output: Any = module.graph.output_node()
    kept: list[Any] = []
    results: list[tuple[int, Any]] = []
    numbers: list[int] = []
    for position, value in enumerate(output.args[0]):
        if not isinstance(value, fx.Node):
            results.append((position, value))
            continue
        if not isinstance(value.meta.get("val", torch.empty(0)), Tensor):
            numbers.append(position)
            value = _as_tensor(module.graph, value)
        kept.append(value)
    if not results and not numbers:
        return module, signature
    output.args = (tuple(kept),)
    module.recompile()
    changed = dataclasses.replace(signature, results=tuple(results), numbers=tuple(numbers))
    return module, changed


def _as_tensor(graph: fx.Graph, number: fx.Node) -> fx.Node:
    value = number.meta["val"]
    whole = isinstance(value, int | torch.SymInt) and not isinstance(value, bool)
    dtype = torch.int64 if whole else torch.float32
    with graph.inserting_before(graph.output_node()):
        node = graph.call_function(
            torch.ops.aten.scalar_tensor.default, (number,), {"dtype": dtype}
        )
    node.meta = dict(number.meta) | {"val": torch.empty((), dtype=dtype, device="meta")}
    return node
