"""A quantized graph as JSON, and back.

A file may be hostile: `graph_from_json` builds only allowed operators, with arguments of a few
plain types under checked names, and raises FormatError for everything else.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import torch
from torch import fx, nn

from ..errors import FormatError
from ..graph.names import module_path
from ..graph.saveable import TORCH_TYPES, fault_of, find_operator, operator_in_files, subgraph
from .checks import MOST_NODES, NAME, check_arguments, check_scales, checked

# dtypes, layouts and memory formats, by their names in torch
TORCH_VALUES = {
    str(value).removeprefix("torch."): value
    for value in vars(torch).values()
    if isinstance(value, TORCH_TYPES)
}
DEVICES = ("cpu", "cuda", "meta", "mps", "xpu")
DEEPEST = 16  # graphs inside graphs: branches of conditions in branches of conditions

Nodes = Mapping[str, fx.Node]  # the nodes built so far, by the names that the file gives them


# ---- nodes


def graph_to_json(graph: fx.Graph) -> list[dict[str, Any]]:
    """The nodes in order; FormatError for what a file cannot hold."""
    return [_node_to_json(node) for node in graph.nodes]


def graph_from_json(data: list[dict[str, Any]], root: nn.Module, depth: int = 0) -> fx.Graph:
    """The inverse of `graph_to_json`.

    root: holds the tensors that the graph may read; the graphs inside this one are added to it.
    """
    if len(data) > MOST_NODES or depth > DEEPEST:
        raise FormatError("a graph in the file is larger or deeper than any that save writes")
    if [item["op"] for item in data].index("output") != len(data) - 1:
        raise FormatError("a graph has one output, at its end")
    graph, nodes = fx.Graph(), dict[str, fx.Node]()
    tensors = dict(root.named_buffers(remove_duplicate=False))
    for item in data:
        name = checked(NAME, item["name"])
        if name in nodes:
            raise FormatError(f"two nodes are named {name!r}")
        if "graph" in item:
            _add_subgraph(item, root, depth + 1)
        elif item["op"] == "get_attr" and item["target"] not in tensors:
            raise FormatError(
                f"the graph reads a tensor {item['target']!r} that the file does not hold"
            )
        nodes[name] = _node_from_json(item, graph, nodes)
    graph.lint()
    check_scales(graph, tensors)
    return graph


def _node_to_json(node: fx.Node) -> dict[str, Any]:
    if fault := fault_of(node):
        raise FormatError(fault)
    is_call = node.op == "call_function"
    target = operator_in_files(node) if is_call else str(node.target)
    data: dict[str, Any] = {"op": node.op, "name": node.name, "target": target}
    if node.op != "placeholder":
        data |= {"args": encode(node.args), "kwargs": encode(node.kwargs)}
    if (inner := subgraph(node)) is not None:
        data["graph"] = graph_to_json(inner.graph)
    if path := module_path(node):
        data["path"] = path
    return data


def _node_from_json(item: dict[str, Any], graph: fx.Graph, nodes: Nodes) -> fx.Node:
    op, target = item["op"], item["target"]
    args, kwargs = decode(item.get("args"), nodes) or (), decode(item.get("kwargs"), nodes) or {}
    if op == "call_function":
        target = find_operator(target)
        check_arguments(target, args, kwargs)
    elif op == "placeholder":
        target = checked(NAME, target)
    elif op not in ("get_attr", "output"):
        raise FormatError(f"a file cannot hold a node of kind {op!r}")
    node = graph.create_node(op, target, args, kwargs, item["name"])
    node.meta["nn_module_stack"] = {"": (str(item.get("path", "")), "")}
    return node


def _add_subgraph(item: dict[str, Any], root: nn.Module, depth: int) -> None:
    """Build the graph that a node stands for, on the tensors below its name, and add it."""
    path = checked(NAME, item["target"])
    if item["op"] != "get_attr" or isinstance(root._modules.get(path), fx.GraphModule):
        raise FormatError(f"the graph {path!r} is in the file twice, or is no graph")
    inner = root._modules.get(path) or nn.Module()
    graph = graph_from_json(item["graph"], inner, depth)
    root.add_module(path, fx.GraphModule(inner, graph))


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


def _decode_device(name: Any, nodes: Nodes) -> torch.device:
    if not isinstance(name, str) or name.partition(":")[0] not in DEVICES:
        raise FormatError(f"{str(name)[:80]!r} is not a device: only {', '.join(DEVICES)} are")
    return torch.device(name)


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
    "device": Codec(torch.device, str, _decode_device),
}
