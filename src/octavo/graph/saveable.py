"""Which graphs a file can hold: what `octavo.save` writes and `octavo.load` reads.

The file itself is in `octavo/io`; this is here so that `quantize` can say early what `save` would
refuse.
"""

from __future__ import annotations

import functools
import math
import operator
from collections.abc import Callable
from typing import Any

import torch
from torch import fx
from torch._ops import HigherOrderOperator, OpOverload

from ..errors import FormatError
from . import ops
from .names import describe
from .op_allowlist import find_overload
from .recurrent import rounded_lstm
from .tensors import attribute

# Functions of sizes, and of tuples.
PYTHON_OPERATORS: dict[str, Any] = {
    f"{f.__module__.removeprefix('_')}.{f.__name__}": f
    for f in (
        *(operator.getitem, operator.add, operator.sub, operator.mul, operator.floordiv),
        *(operator.mod, operator.neg, operator.truediv, operator.eq, operator.ge, operator.le),
        *(operator.gt, operator.lt, operator.ne, operator.pow, operator.and_, operator.or_),
        *(operator.not_, operator.abs, operator.pos, math.ceil, math.floor, math.trunc, round),
        *(torch.sym_float, torch.sym_int, torch.sym_ite, torch.sym_max, torch.sym_min),
        *(torch.sym_not, torch.sym_sum),
    )
}
# Names in files stay what they were when the format was fixed, whatever the operators are called.
OWN_OPERATORS = {
    "octavo.quantize.default": ops.quantize,
    "octavo.dequantize.default": ops.dequantize,
    "octavo.unrounded.default": ops.fuse_in_accumulator,
    "octavo.roundable.default": ops.requantize_hint,
    **{
        f"octavo.{op.name().removeprefix('octavo::')}.default": op
        for op in (*ops.DYNAMIC, rounded_lstm)
    },
}
# Operators that run graphs inside the graph.
HIGHER_ORDER = {
    f"higher_order.{name}": getattr(torch.ops.higher_order, name)
    for name in (
        *("cond", "map_impl", "scan", "while_loop"),
        *("wrap_with_autocast", "wrap_with_set_grad_enabled"),
    )
}
_KNOWN: dict[str, Any] = PYTHON_OPERATORS | OWN_OPERATORS | HIGHER_ORDER
_NAMES = {target: name for name, target in _KNOWN.items()}

# dtypes, layouts and memory formats
TORCH_TYPES = (torch.dtype, torch.layout, torch.memory_format)
PLAIN_TYPES = (type(None), bool, int, float, str, complex, *TORCH_TYPES, torch.device)


def unsaveable(graph: fx.Graph) -> list[str]:
    """A sentence for each node that a file cannot hold, with the reason; needs no tensors.

    >>> graph = fx.Graph()
    >>> _ = graph.call_function(torch.ops.aten.from_file.default, ("data.bin",))
    >>> unsaveable(graph)
    ["node 'from_file_default' (from_file): a file cannot hold the operator aten.from_file.default"]
    """
    faults = []
    for node in graph.nodes:
        inner = subgraph(node)
        faults += [fault] if (fault := fault_of(node)) else []
        faults += unsaveable(inner.graph) if inner is not None else []
    return faults


def fault_of(node: fx.Node) -> str:
    """Why a file cannot hold this node; empty if it can."""
    if node.op not in ("placeholder", "get_attr", "call_function", "output"):
        return f"{describe(node)}: a file cannot hold a node of kind {node.op!r}"
    if node.op == "call_function":
        name = operator_in_files(node)
        try:
            if find_operator(name) is not node.target:
                return f"{describe(node)}: {name} is another operator in files"
        except FormatError as e:
            return f"{describe(node)}: {e}"
    others: list[str] = []
    fx.node.map_aggregate((node.args, node.kwargs), functools.partial(_note_other, others))
    return f"{describe(node)}: an argument of type {others[0]} cannot be saved" if others else ""


def _note_other(found: list[str], argument: Any) -> None:
    """Note the type of an argument that is none of those in files."""
    if not isinstance(argument, (fx.Node, *PLAIN_TYPES)):
        found.append(type(argument).__name__)


def subgraph(node: fx.Node) -> fx.GraphModule | None:
    """The graph inside the graph that a node stands for, such as a branch of torch.cond."""
    owner = node.graph.owning_module
    value = attribute(owner, node.target) if node.op == "get_attr" and owner is not None else None
    return value if isinstance(value, fx.GraphModule) else None


def operator_in_files(node: fx.Node) -> str:
    """The name that files have for the operator of a node."""
    target: Any = node.target
    if target in _NAMES:
        return _NAMES[target]
    if isinstance(target, OpOverload):
        return str(target)
    kind = "higher_order" if isinstance(target, HigherOrderOperator) else target.__module__
    return f"{kind}.{target.__name__}"


def find_operator(name: str) -> Callable[..., Any]:
    """An operator that a file may hold, by its name there; raises FormatError for any other."""
    found = _KNOWN.get(name) or find_overload(name)
    if found is None:
        raise FormatError(f"a file cannot hold the operator {name[:80]}")
    return found
