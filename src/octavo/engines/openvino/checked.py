"""Compiling with a second look: what OpenVINO computes is compared with PyTorch, and mended."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, fx
from torch._ops import OpOverload

from ...errors import EngineError, PartitionWarning
from ...graph import ops
from ...graph.compare import difference
from ...graph.interpreter import observe_values
from ...graph.names import full_name
from ..base import EngineModel, GraphProgram, Program, disagreement, least_agreement
from .build import Builder
from .compiled import CompiledModel
from .frontend import OperatorConverter
from .partition import PartitionedModel
from .table import Unsupported

ATTEMPTS = 8  # operators found wrong, one after the other, before giving up


def compile_checked(program: Program, settings: dict[str, Any], check: bool) -> EngineModel:
    """The model in OpenVINO, but for operators that it lacks or computes wrongly.

    Warns (PartitionWarning) if PyTorch runs some of it. EngineError if what is left still computes
    something else than the reference.
    """
    excluded: dict[str, str] = {}  # name of a node -> why PyTorch runs it
    for _ in range(ATTEMPTS):
        model = _compiled(program, settings, excluded)
        found = disagreement(model, program) if check else None
        if found is not None and isinstance(model, CompiledModel):
            reason = found[1]
            model.use_one_for_any_shape()  # kernels for fixed shapes may be at fault
            found = disagreement(model, program)
            if found is None:
                _warn(
                    6,
                    f"with OpenVINO's kernels for fixed shapes, {reason}: its kernels for any "
                    "shape are used, which may be slower",
                )
        if found is None:
            _warn_of_parts(model, excluded)
            if check and isinstance(model, CompiledModel):
                model.is_right = lambda other: disagreement(other, program) is None
            return model
        inputs, reason = found
        wrong = _first_wrong(program, settings, excluded, inputs)
        if all(n.name in excluded for n in wrong):
            break
        first = f"{full_name(wrong[0])} (OpenVINO computes something else: {reason})"
        excluded |= {n.name: full_name(n) for n in wrong} | {wrong[0].name: first}
    raise EngineError(
        f"OpenVINO computes something else than the reference: {reason}. Run the model with "
        "compile('torch_int8') or compile('reference')"
    )


def _compiled(program: Program, settings: dict[str, Any], excluded: dict[str, str]) -> EngineModel:
    """The model without the excluded nodes in OpenVINO; adds to them those that it cannot run."""
    module, signature = program.graph_module, program.signature
    converter = OperatorConverter(module, signature)
    names = {n.name for n in module.graph.nodes}
    while True:
        try:
            if not excluded.keys() & names:
                builder = Builder(module, signature, converter)
                built = builder.build(guarded=True)
                return CompiledModel(built, signature, settings | builder.settings, builder.guarded)
            return PartitionedModel(converter, settings, excluded)
        except Unsupported as e:
            if e.node is None or e.node.name in excluded:
                raise EngineError(f"OpenVINO cannot run this model: {e}") from e
            excluded[e.node.name] = full_name(e.node)


def _first_wrong(
    program: Program,
    settings: dict[str, Any],
    excluded: dict[str, str],
    inputs: Sequence[Tensor],
) -> list[fx.Node]:
    """The first operator whose value differs, by bisection over graphs that end at one.

    After it, those on integers that it reads, whose values cannot be compared.
    """
    values: dict[fx.Node, Any] = {}
    observe_values(program.graph_module, inputs, values.__setitem__)
    nodes = [n for n in program.graph_module.graph.nodes if _is_computed(n, values.get(n))]
    least = least_agreement(program)

    def is_wrong(node: fx.Node) -> bool:
        part = GraphProgram(_up_to(program.graph_module, node), program.signature)
        try:
            got = _compiled(part, settings, dict(excluded)).run(inputs)
        except (EngineError, RuntimeError):
            return True
        return bool(difference([values[node]], got, least))

    low, high = 0, len(nodes)
    while low < high:
        middle = (low + high) // 2
        if is_wrong(nodes[middle]):
            high = middle
        else:
            low = middle + 1
    if low == len(nodes):
        return []
    wrong, compared = [nodes[low]], set(nodes)
    for node in wrong:
        wrong += [n for n in node.all_input_nodes if n not in compared and n not in wrong]
    return [n for n in wrong if n.op == "call_function" and n.target not in ops.ALL]


def _is_computed(node: fx.Node, value: Any) -> bool:
    """Whether OpenVINO computes a node's value as PyTorch has it; integers are floats there."""
    own = node.target in ops.ALL or not isinstance(node.target, OpOverload)
    integers = isinstance(value, Tensor) and value.dtype in (torch.uint8, torch.int8)
    return isinstance(value, Tensor) and not own and not integers


def _up_to(module: fx.GraphModule, last: fx.Node) -> fx.GraphModule:
    """The part of the graph that computes a node, with the same inputs."""
    needed, todo = {last}, [last]
    while todo:
        todo += [n for n in todo.pop().all_input_nodes if n not in needed]
        needed.update(todo)
    graph = fx.Graph()
    copies: dict[fx.Node, fx.Node] = {}
    for node in module.graph.nodes:
        if node in needed or node.op == "placeholder":
            copies[node] = graph.node_copy(node, copies.__getitem__)
    graph.output((copies[last],))
    return fx.GraphModule(module, graph)


def _warn_of_parts(model: EngineModel, excluded: Mapping[str, str]) -> None:
    names = model.in_pytorch
    if not names:
        return
    more = f" and {len(names) - 10} more" if len(names) > 10 else ""
    wrong = [reason for reason in excluded.values() if "computes something" in reason]
    _warn(
        7,
        f"OpenVINO cannot run all of this model; in PyTorch run {', '.join(names[:10])}{more} "
        f"(the compiled model's `in_pytorch` lists them){''.join(f'. {w}' for w in wrong)}",
    )


def _warn(depth: int, message: str) -> None:
    """Warn at the call of QuantizedModel.compile, so many calls up."""
    warnings.warn(message, PartitionWarning, stacklevel=depth)
