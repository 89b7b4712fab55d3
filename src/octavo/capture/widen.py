"""Models of float16, bfloat16 or float64 weights, and autocast regions, become float32 graphs."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection
from typing import Any

import torch
import torch.utils._pytree as pytree
from torch import Tensor, fx, nn

from .signature import Signature

FLOATS = {torch.float16, torch.bfloat16, torch.float64}
AUTOCAST = torch.ops.higher_order.wrap_with_autocast


def widened(module: fx.GraphModule, signature: Signature) -> tuple[fx.GraphModule, Signature]:
    """The graph in float32, if the model computes in other types; its outputs keep their types.

    Types are those of the parameters, or of the inputs of a model without any, and of enabled
    autocast regions, which are inlined later.
    Casts to other types that the model makes elsewhere stay. The module's own tensors are replaced,
    not changed.
    """
    kinds = {p.dtype for p in module.parameters() if p.is_floating_point()}
    kinds = kinds or {n.meta["val"].dtype for n in module.graph.find_nodes(op="placeholder")}
    types = kinds & FLOATS | _autocast_types(module)
    if not types:
        return module, signature
    outputs = module.graph.output_node().args[0]
    returned = [n.meta["val"].dtype if isinstance(n, fx.Node) else None for n in outputs]  # type: ignore[union-attr]
    names = tuple(str(k).removeprefix("torch.") if k in types else "" for k in returned)
    _widen(module, types)
    inputs = tuple(
        ("float32" if getattr(torch, dtype) in types else dtype, shape)
        for dtype, shape in signature.inputs
    )
    return module, dataclasses.replace(signature, inputs=inputs, output_types=names)


def _autocast_types(module: fx.GraphModule) -> set[torch.dtype]:
    found = set()
    for node in module.graph.find_nodes(op="call_function", target=AUTOCAST):
        device, dtype, enabled, *_ = node.args
        if enabled:
            found.add(dtype or torch.get_autocast_dtype(str(device)))
    return found & FLOATS


def _widen(module: fx.GraphModule, types: Collection[torch.dtype]) -> None:
    """Replace these types by float32 in a graph, its tensors and its regions."""

    def wide(value: Any) -> Any:
        if isinstance(value, Tensor) and value.dtype in types:
            return value.to(torch.float32)
        return torch.float32 if isinstance(value, torch.dtype) and value in types else value

    for inner in module.modules():
        for tensors in (inner._parameters, inner._buffers, vars(inner)):
            for name, value in tensors.items():
                if isinstance(value, nn.Parameter) and value.dtype in types:
                    tensors[name] = nn.Parameter(wide(value.detach()), requires_grad=False)
                elif isinstance(value, Tensor):
                    tensors[name] = wide(value)
        if isinstance(inner, fx.GraphModule):
            for node in inner.graph.nodes:
                node.args, node.kwargs = fx.node.map_aggregate((node.args, node.kwargs), wide)
                if "val" in node.meta:
                    node.meta["val"] = pytree.tree_map(wide, node.meta["val"])
            inner.recompile()
