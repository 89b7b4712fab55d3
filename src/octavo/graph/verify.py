"""Invariants of the graph after each stage, checked in tests and under OCTAVO_DEBUG=1.

OCTAVO_DEBUG=1 checks the graph at every boundary; OCTAVO_DEBUG=passes prints it as well.
"""

from __future__ import annotations

import operator
import os
import sys
from collections.abc import Iterator
from typing import Any

import torch
from torch import fx
from torch._ops import OpOverload

from ..errors import ConversionError
from . import ops
from .names import describe, operator_name
from .operators import Kind, is_operator, operator_of
from .qdq_checks import dynamic_input, is_stored_rows, scale_faults
from .tensors import attribute

STAGES = ("capture", "passes", "equalize", "emit", "tune")


def checkpoint(module: fx.GraphModule, stage: str) -> None:
    """Verify, and print, the graph after `stage`, as the variable OCTAVO_DEBUG says."""
    mode = os.environ.get("OCTAVO_DEBUG", "")
    if mode in ("1", "passes"):
        verify(module, stage)
    if mode == "passes":
        print(f"---- after {stage}\n{graph_text(module.graph)}", file=sys.stderr)


def verify(module: fx.GraphModule, stage: str) -> None:
    """Raise ConversionError if the graph breaks an invariant of `stage`, one of STAGES."""
    if stage not in STAGES:
        raise ConversionError(f"there is no stage {stage!r}: choose one of {', '.join(STAGES)}")
    faults = list(_faults(module, stage))
    if faults:
        raise ConversionError(f"after {stage} the graph is not as it must be: {'; '.join(faults)}")


def graph_text(graph: fx.Graph) -> str:
    """The graph as text, one line per operator; tensors are written as their paths."""
    lines = []
    for node in graph.nodes:
        if node.op == "get_attr":
            continue
        args, kwargs = fx.node.map_aggregate((node.args, node.kwargs), _named)
        given = ", ".join([*map(str, args), *(f"{k}={v}" for k, v in kwargs.items())])
        called = "input" if node.op == "placeholder" else f"{operator_name(node)}({given})"
        lines.append(f"return {given}" if node.op == "output" else f"{node.name} = {called}")
    return "\n".join(lines)


def _named(arg: Any) -> Any:
    """A node as its name, or as the path of the tensor that it stands for."""
    if isinstance(arg, fx.Node):
        return _Text(arg.target if arg.op == "get_attr" else arg.name)
    return arg


class _Text(str):
    """A name that is printed without quotes inside a list."""

    __repr__ = str.__str__


def _faults(module: fx.GraphModule, stage: str) -> Iterator[str]:
    try:
        module.graph.lint()
    except Exception as e:
        yield str(e)
    tensors = {n.target for n in module.graph.nodes if n.op == "get_attr"}
    yield from (f"it reads {t!r}, which is not there" for t in tensors if not _exists(module, t))
    if stage in ("passes", "equalize"):
        yield from _faults_of_passes(module.graph)
    if stage in ("emit", "tune"):
        values = dict(module.named_buffers(remove_duplicate=False))
        yield from scale_faults(module.graph, values)
        yield from _faults_of_integers(module)
        yield from _faults_of_groups(module.graph)


def _exists(module: fx.GraphModule, path: object) -> bool:
    try:
        attribute(module, path)
    except AttributeError:
        return False
    return True


def _faults_of_passes(graph: fx.Graph) -> Iterator[str]:
    """No operator writes in place, except to buffers, and no layer argument is left out."""
    for node in graph.nodes:
        if not isinstance(node.target, OpOverload):
            continue
        written = node.args[0] if node.target._schema.is_mutable and node.args else None
        if isinstance(written, fx.Node) and written.op != "get_attr":
            yield f"{describe(node)} writes in place"
        if operator_of(node).weight_axis is not None:
            expected = [a for a in node.target._schema.arguments if not a.kwarg_only]
            if len(node.args) != len(expected):
                yield f"{describe(node)} has {len(node.args)} arguments, not {len(expected)}"


def _faults_of_integers(module: fx.GraphModule) -> Iterator[str]:
    """Integers come from a quantize or a weight; those of a quantize are moved or dequantized."""
    quantized: set[fx.Node] = set()
    for node in module.graph.nodes:
        reads = quantized.intersection(node.all_input_nodes)
        if node.target is ops.dequantize:
            source = node.args[0]
            if source not in quantized and not _is_integer_tensor(module, source):
                yield f"{describe(node)} reads {source}, which is not quantized"
        elif node.target is ops.quantize or (reads and _moves(node)):
            quantized.add(node)
        elif reads and isinstance(node.target, OpOverload) and not is_operator(node, "sym_size"):
            yield f"{describe(node)} reads integers without their scale"


def _faults_of_groups(graph: fx.Graph) -> Iterator[str]:
    """Integers of a dynamic scale are dequantized with it, and nothing else reads them."""
    for node in graph.nodes:
        if node.target is ops.dequantize_groups:
            if dynamic_input(node) is None and not is_stored_rows(node):
                yield f"{describe(node)} reads what is not quantized with its scale"
        elif node.target is ops.quantize_groups:
            others = [u for u in node.users if u.target is not ops.dequantize_groups]
            yield from (f"{describe(u)} reads integers without their scale" for u in others)


def _is_integer_tensor(module: fx.GraphModule, node: fx.Node) -> bool:
    value = attribute(module, node.target) if node.op == "get_attr" else None
    return isinstance(value, torch.Tensor) and value.dtype in (torch.uint8, torch.int8)


def _moves(node: fx.Node) -> bool:
    return node.target is operator.getitem or operator_of(node).kind is Kind.LAYOUT
