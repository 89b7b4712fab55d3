"""Checks of `octavo::quantize`, `octavo::dequantize` and the hints: scales, zero_points, bounds.

They hold for every graph that Octavo makes, and for every graph that it reads from a file.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, fx

from . import ops
from .recurrent import rounded_lstm


def scale_faults(graph: fx.Graph, tensors: Mapping[str, Tensor]) -> Iterator[str]:
    """A sentence for each scale, zero_point or integer bound that no quantized value can have.

    tensors: the model's, by path. A scale that is computed, or missing there, is not checked.

    >>> graph = fx.Graph()
    >>> arguments = (graph.placeholder("x"), graph.get_attr("scale"), graph.get_attr("zero"))
    >>> _ = graph.call_function(ops.quantize, (*arguments, 0, 255, torch.uint8))
    >>> list(scale_faults(graph, {"scale": torch.tensor(-1.0), "zero": torch.tensor(0)}))
    ["the scale of 'quantize_default' is not positive and finite"]
    """
    for node in graph.nodes:
        if node.target in (*ops.ALL, rounded_lstm):
            yield from _faults(node, tensors)


def dynamic_input(node: Any) -> tuple[fx.Node, int] | None:
    """Of a `dequantize_groups`, the value that its dynamic scale rounds and the group size.

    None for any other node, and where integers, scale and size do not belong together.
    """
    if not isinstance(node, fx.Node) or node.target is not ops.dequantize_groups:
        return None
    given: Any = node.args
    q, scale, size = given
    if not (_calls(q, ops.quantize_groups) and _calls(scale, ops.dynamic_scale)):
        return None
    x: Any = q.args[0]
    together = q.args == (x, scale, size) and scale.args == (x, size)
    return (x, size) if together and type(size) is int else None


def is_stored_rows(node: fx.Node) -> bool:
    """Whether a `dequantize_groups` reads rows of a table of integers, with a scale each."""
    given: Any = node.args
    gathers = [n for n in given[:2] if _calls(n, torch.ops.aten.embedding.default)]
    return len(gathers) == 2 and gathers[0].args[1] is gathers[1].args[1]


def _calls(node: Any, operator: Any) -> bool:
    return isinstance(node, fx.Node) and node.target is operator


def _faults(node: fx.Node, tensors: Mapping[str, Tensor]) -> Iterator[str]:
    target: Any = node.target
    if target in ops.DYNAMIC:
        size = node.args[-1]
        if type(size) is not int or size < 1:
            yield f"the group size of {node.name!r} is not a positive number"
        return
    names = (argument.name for argument in target._schema.arguments)
    given = dict(zip(names, node.args, strict=False)) | node.kwargs
    scale, zero_point = (_tensor(given.get(name), tensors) for name in ("scale", "zero_point"))
    if scale is not None and not _is_positive(scale):
        yield f"the scale of {node.name!r} is not positive and finite"
    if zero_point is not None and zero_point.is_floating_point():
        yield f"the zero_point of {node.name!r} is not an integer"
    if node.target is not ops.dequantize and not _fits(given, zero_point):
        yield f"the integers of {node.name!r} do not fit their type"


def _tensor(argument: Any, tensors: Mapping[str, Tensor]) -> Tensor | None:
    is_constant = isinstance(argument, fx.Node) and argument.op == "get_attr"
    return tensors.get(str(argument.target)) if is_constant else None


def _is_positive(scale: Tensor) -> bool:
    return scale.is_floating_point() and bool(((scale > 0) & scale.isfinite()).all())


def _fits(given: Mapping[str, Any], zero_point: Tensor | None) -> bool:
    """Whether the bounds, the dtype (of a quantize) and zero_point are those of 8-bit integers."""
    qmin, qmax = given.get("qmin"), given.get("qmax")
    if not (isinstance(qmin, int) and isinstance(qmax, int)):
        return False
    dtype, least, most = (torch.int8, -128, 127) if qmin < 0 else (torch.uint8, 0, 255)
    if not least <= qmin < qmax <= most or given.get("dtype", dtype) is not dtype:
        return False
    return zero_point is None or bool(((zero_point >= qmin) & (zero_point <= qmax)).all())
