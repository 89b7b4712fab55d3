"""Values to measure noise on, for models whose outputs cannot be compared.

What a mask, a suppression of boxes or an argmax leaves depends on a threshold: its length, or its
integers, differ between two graphs that are nearly the same. The floats it was computed from
can be compared. While a model is quantized they are further outputs of its graph.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch.utils._pytree as pytree
from torch import Tensor, fx
from torch.fx.experimental.symbolic_shapes import free_unbacked_symbols

from .float_graph import FloatGraph, copied
from .signature import Signature


def is_comparable(node: fx.Node) -> bool:
    """Whether two runs of the graph give floats of the same shape here, on the same inputs."""
    value = node.meta.get("val")
    if value is None:
        return True
    return (
        isinstance(value, Tensor) and value.is_floating_point() and not free_unbacked_symbols(value)
    )


def with_probes(graph: FloatGraph) -> FloatGraph:
    """The graph with further outputs, if not all of its own can be compared.

    Outputs of integers need none if there is an output of floats beside them.
    """
    outputs: Any = graph.graph.output_node().args[0]
    missing = [n for n in outputs if not is_comparable(n)]
    if len(missing) < len(outputs):
        missing = [n for n in missing if free_unbacked_symbols(pytree.tree_leaves(n.meta["val"]))]
    probes = dict.fromkeys(p for n in missing for p in _sources(n) if p not in outputs)
    if not probes:
        return graph
    result = copied(graph)
    names = {n.name: n for n in result.graph.nodes}
    output = result.graph.output_node()
    output.args = ((*output.args[0], *(names[p.name] for p in probes)),)  # type: ignore[misc]
    result.module.recompile()
    return result


def _sources(node: fx.Node) -> Iterator[fx.Node]:
    """The nearest comparable values that a node is computed from."""
    todo, seen = [node], set()
    while todo:
        for source in todo.pop().all_input_nodes:
            if source in seen or source.op == "get_attr":
                continue
            seen.add(source)
            if source.op == "call_function" and is_comparable(source):
                yield source
            else:
                todo.append(source)


def without_probes(module: fx.GraphModule, signature: Signature) -> fx.GraphModule:
    """The module, changed in place to return the model's own outputs only."""
    output = module.graph.output_node()
    if len(output.args[0]) > signature.returned:  # type: ignore[arg-type]
        output.args = (output.args[0][: signature.returned],)  # type: ignore[index]
        module.graph.eliminate_dead_code()
        module.recompile()
    return module
