"""A quantized graph as JSON, and back.

A file may be hostile: `graph_from_json` builds only allowed operators, with arguments of a few
plain types under checked names, and raises FormatError for everything else.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, fx
from torch._ops import OpOverload

from ..errors import FormatError
from ..graph import ops
from ..graph.names import module_path
from .checks import MOST_NODES, NAME, check_arguments, checked
from .op_allowlist import ATEN_OPERATORS, TORCH_TYPES, TORCH_VALUES

PYTHON_OPERATORS = {
    f"operator.{f.__name__}": f
    for f in (
        *(operator.getitem, operator.add, operator.sub, operator.mul, operator.floordiv),
        *(operator.mod, operator.neg, operator.truediv, operator.eq, operator.ge, operator.le),
    )
}
# Names in files stay what they were when the format was fixed, whatever the operators are called.
OWN_OPERATORS = {
    "octavo.quantize.default": ops.quantize,
    "octavo.dequantize.default": ops.dequantize,
    "octavo.unrounded.default": ops.fuse_in_accumulator,
    "octavo.roundable.default": ops.requantize_hint,
}
NAMES_IN_FILES = {op: name for name, op in OWN_OPERATORS.items()}

Nodes = Mapping[str, fx.Node]  # the nodes built so far, by the names that the file gives them


# ---- nodes


def graph_to_json(graph: fx.Graph) -> list[dict[str, Any]]:
    """The nodes in order; FormatError for what a file cannot hold."""
    return [_node_to_json(node) for node in graph.nodes]


def graph_from_json(data: list[dict[str, Any]], tensors: Mapping[str, Tensor]) -> fx.Graph:
    """The inverse of `graph_to_json`; tensors are those that the graph may read, by path."""
    if len(data) > MOST_NODES:
        raise FormatError(f"a graph of {len(data)} nodes is larger than any that save writes")
    if [item["op"] for item in data].index("output") != len(data) - 1:
        raise FormatError("a graph has one output, at its end")
    graph = fx.Graph()
    nodes: dict[str, fx.Node] = {}
    for item in data:
        name = checked(NAME, item["name"])
        if name in nodes:
            raise FormatError(f"two nodes are named {name!r}")
        nodes[name] = _node_from_json(item, graph, nodes, tensors)
    graph.lint()
    return graph


def _node_to_json(node: fx.Node) -> dict[str, Any]:
    data = {"op": node.op, "name": node.name, "target": _target_to_json(node)}
    if node.op != "placeholder":
        data |= {"args": encode(node.args), "kwargs": encode(node.kwargs)}
    if path := module_path(node):
        data["path"] = path
    return data


def _node_from_json(
    item: dict[str, Any],
    graph: fx.Graph,
    nodes: Nodes,
    tensors: Mapping[str, Tensor],
) -> fx.Node:
    op, target = item["op"], item["target"]
    args, kwargs = decode(item.get("args"), nodes) or (), decode(item.get("kwargs"), nodes) or {}
    if op == "call_function":
        target = find_operator(target)
        check_arguments(target, args, kwargs)
    elif op == "placeholder":
        target = checked(NAME, target)
    elif op == "get_attr":
        if target not in tensors:
            raise FormatError(f"the graph reads a tensor {target!r} that the file does not hold")
    elif op != "output":
        raise FormatError(f"a file cannot hold a node of kind {op!r}")
    node = graph.create_node(op, target, args, kwargs, item["name"])
    node.meta["nn_module_stack"] = {"": (str(item.get("path", "")), "")}
    return node


# ---- operators


def _target_to_json(node: fx.Node) -> str:
    target: Any = node.target
    if isinstance(target, OpOverload):
        name = NAMES_IN_FILES.get(target, str(target))
    elif node.op == "call_function":
        name = f"operator.{target.__name__}"
    else:
        return str(target)
    if find_operator(name) is not target:
        raise FormatError(f"the operator {name} of node {node.name!r} cannot be saved")
    return name


def find_operator(name: str) -> Callable[..., Any]:
    """An allowed operator by name; raises FormatError for any other."""
    known = OWN_OPERATORS.get(name) or PYTHON_OPERATORS.get(name)
    if known is not None:
        return known
    namespace, _, rest = name.partition(".")
    packet_name, _, overload = rest.partition(".")
    if namespace == "aten" and packet_name in ATEN_OPERATORS:
        packet = getattr(torch.ops.aten, packet_name)
        found = getattr(packet, overload) if overload in packet.overloads() else None
        if found is not None and (not found._schema.is_mutable or packet_name == "copy_"):
            return found
    raise FormatError(
        f"the operator {name[:80]!r} is not among those a file may hold (octavo/io/op_allowlist.py)"
    )


# ---- arguments


class Codec(NamedTuple):
    """How values of some types are written in a file, and made again from what is written."""

    types: type | tuple[type, ...]
    encode: Callable[[Any], Any]
    decode: Callable[[Any, Nodes], Any]


def encode(value: Any) -> Any:
    """A graph argument as JSON: plain values as they are, others as {kind: what its codec writes}.

    >>> encode((1, [2.5, float("inf")]))
    {'tuple': [1, {'list': [2.5, {'float': 'inf'}]}]}
    """
    if _is_plain(value) and not (isinstance(value, float) and not math.isfinite(value)):
        return value
    for kind, codec in CODECS.items():
        if isinstance(value, codec.types):
            return {kind: codec.encode(value)}
    raise FormatError(f"a graph argument of type {type(value).__name__} cannot be saved")


def decode(value: Any, nodes: Nodes) -> Any:
    """The inverse of `encode`; raises FormatError for a value of another kind.

    >>> decode({"tuple": [1, {"float": "inf"}]}, {})
    (1, inf)
    """
    if _is_plain(value):
        return value
    if not isinstance(value, dict) or len(value) != 1:
        raise FormatError(f"the graph holds a {type(value).__name__} that is not an argument")
    ((kind, inner),) = value.items()
    if kind not in CODECS:
        raise FormatError(f"the graph holds an argument of unknown kind {kind[:80]!r}")
    return CODECS[kind].decode(inner, nodes)


def _is_plain(value: Any) -> bool:
    return value is None or isinstance(value, bool | int | float | str)


def _encode_all(values: Iterable[Any]) -> list[Any]:
    return [encode(v) for v in values]


def _decode_all(items: Iterable[Any], nodes: Nodes) -> list[Any]:
    return [decode(item, nodes) for item in items]


def _decode_dict(items: dict[str, Any], nodes: Nodes) -> dict[str, Any]:
    return {checked(NAME, key): decode(item, nodes) for key, item in items.items()}


def _decode_torch(name: Any, nodes: Nodes) -> Any:
    if not isinstance(name, str) or name not in TORCH_VALUES:
        raise FormatError(f"{str(name)[:80]!r} is not a dtype, layout or memory format of torch")
    return TORCH_VALUES[name]


CODECS: dict[str, Codec] = {
    "node": Codec(fx.Node, lambda node: node.name, lambda name, nodes: nodes[name]),
    "tuple": Codec(tuple, _encode_all, lambda items, nodes: tuple(_decode_all(items, nodes))),
    "list": Codec(list, _encode_all, _decode_all),
    "slice": Codec(
        slice,
        lambda s: _encode_all((s.start, s.stop, s.step)),
        lambda items, nodes: slice(*_decode_all(items, nodes)),
    ),
    "dict": Codec(dict, lambda d: {key: encode(v) for key, v in d.items()}, _decode_dict),
    "float": Codec(float, str, lambda text, nodes: float(text)),  # infinite, or not a number
    "complex": Codec(
        complex, lambda z: [z.real, z.imag], lambda parts, nodes: complex(*map(float, parts))
    ),
    "torch": Codec(TORCH_TYPES, lambda value: str(value).removeprefix("torch."), _decode_torch),
    "device": Codec(torch.device, str, lambda name, nodes: torch.device(name)),
}
