"""One safe file: safetensors, with the graph as JSON in its metadata.

Nothing in a file is ever executed or imported: the loader builds only operators of a fixed set,
with arguments of a few plain types, and refuses everything else.
"""

from __future__ import annotations

import json
import keyword
import math
import operator
import os
import re
import tempfile
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, fx, nn
from torch._ops import OpOverload

from ..capture.signature import Signature
from ..config import Config
from ..errors import FormatError, OctavoError
from ..graph import ops
from ..graph.names import module_path
from ..graph.tensors import set_buffer
from ..model import QuantizedModel
from ..report import Report
from .checks import (
    LARGEST_METADATA,
    MOST_NODES,
    check_arguments,
    check_scales,
    check_structure,
    parsed,
)
from .op_allowlist import ATEN_OPERATORS, TORCH_VALUES

FORMAT = 1
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
# A graph becomes Python source when it is compiled: names must be no more than names.
NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,255}")
PATH = re.compile(r"[A-Za-z0-9_]+(\.[A-Za-z0-9_]+)*")


def save(model: QuantizedModel, path: str | os.PathLike[str]) -> None:
    """Write `model` to one file that `load` reads; int8 weights take one byte each.

    The file is written beside its place and moved there when complete, so that an interrupted
    call leaves an older file whole. Raises FormatError for a graph that a file cannot hold.

    >>> import octavo, tempfile, os
    >>> q = octavo.quantize(nn.Linear(4, 2), torch.rand(8, 4))
    >>> octavo.save(q, os.path.join(tempfile.mkdtemp(), "linear.octavo"))
    """
    if not isinstance(model, QuantizedModel):
        raise FormatError(f"save takes an octavo.QuantizedModel, not a {type(model).__name__}")
    try:
        signature = model.signature.to_json()
    except OctavoError as e:
        raise FormatError(str(e)) from e
    check_structure(signature["in_spec"])
    check_structure(signature["out_spec"])
    metadata = {
        "octavo": json.dumps({"format": FORMAT, "torch": torch.__version__}),
        "graph": json.dumps([_node_to_json(n) for n in model.graph.nodes]),
        "signature": json.dumps(signature),
        "config": model.config.to_json(),
        "report": json.dumps(model.report().to_dict()),
    }
    if sum(map(len, metadata.values())) > LARGEST_METADATA:
        raise FormatError("the model's graph is larger than a file may hold: save parts of it")
    buffers = model.graph_module.named_buffers()
    # copies, since safetensors takes no tensors that are views of the same memory
    form = torch.contiguous_format
    tensors = {_checked(PATH, n): t.detach().cpu().clone(memory_format=form) for n, t in buffers}
    write_atomically(path, lambda temporary: save_file(tensors, temporary, metadata))


def write_atomically(path: str | os.PathLike[str], write: Any) -> None:
    """Call write(temporary path) and move the result to `path`, all or nothing."""
    target = Path(path)
    if not target.parent.is_dir():
        raise FormatError(f"cannot write {target}: there is no folder {target.parent}")
    handle, temporary = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
    os.close(handle)
    try:
        write(temporary)
        with open(temporary, "rb") as f:
            os.fsync(f.fileno())
        umask = os.umask(0)
        os.umask(umask)
        os.chmod(temporary, 0o666 & ~umask)
        os.replace(temporary, target)
    except BaseException:
        os.unlink(temporary)
        raise
    _sync_folder(target.parent)


def _sync_folder(folder: Path) -> None:
    """Make a new name in a folder last through a power failure, where the system can."""
    if hasattr(os, "O_DIRECTORY"):
        handle = os.open(folder, os.O_DIRECTORY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def load(path: str | os.PathLike[str], device: str | torch.device = "cpu") -> QuantizedModel:
    """Read a model that `save` wrote; safe for files from anywhere.

    Raises FormatError for a file that is missing, damaged, of another format, or that holds an
    operator or a type the loader does not allow.
    """
    try:
        with safe_open(path, framework="pt") as f:
            metadata = f.metadata() or {}
            if sum(map(len, metadata.values())) > LARGEST_METADATA:
                raise FormatError(f"{path}: more metadata than any model needs")
            _check_format(path, metadata)
            root = nn.Module()
            for name in f.keys():  # noqa: SIM118  (not a dict)
                set_buffer(root, _checked(PATH, name), f.get_tensor(name))
        tensors = dict(root.named_buffers())
        graph = _graph_from_json(parsed(metadata["graph"]), tensors)
        check_scales(graph, tensors)
        module = fx.GraphModule(root, graph)
        structure = parsed(metadata["signature"])
        check_structure(structure["in_spec"])
        check_structure(structure["out_spec"])
        signature = Signature.from_json(structure)
        if len(signature.inputs) != len(graph.find_nodes(op="placeholder")):
            raise FormatError(f"{path}: its graph has other inputs than its signature")
        config = Config.from_json(metadata["config"])
        report = Report.from_dict(parsed(metadata["report"]))
    except FormatError:
        raise
    except (SafetensorError, OSError) as e:
        raise FormatError(f"cannot read {path}: {e}") from e
    except Exception as e:
        raise FormatError(f"{path} is damaged: {type(e).__name__}: {e}") from e
    return QuantizedModel(module, signature, config, report).to(device)


def _check_format(path: str | os.PathLike[str], metadata: dict[str, str]) -> None:
    about = parsed(metadata.get("octavo", "{}"))
    if "format" not in about:
        raise FormatError(f"{path} is not an Octavo file")
    if about["format"] != FORMAT:
        raise FormatError(
            f"{path} is of format {str(about['format'])[:20]}; this version of Octavo reads format "
            f"{FORMAT}: install a newer one"
        )


# ---- graph <-> JSON


def _node_to_json(node: fx.Node) -> dict[str, Any]:
    data = {"op": node.op, "name": node.name, "target": _target_to_json(node)}
    if node.op != "placeholder":
        data |= {"args": _to_json(node.args), "kwargs": _to_json(node.kwargs)}
    if path := module_path(node):
        data["path"] = path
    return data


def _target_to_json(node: fx.Node) -> str:
    target: Any = node.target
    if isinstance(target, OpOverload):
        name = NAMES_IN_FILES.get(target, str(target))
    elif node.op == "call_function":
        name = f"operator.{target.__name__}"
    else:
        return str(target)
    if _find_operator(name) is not target:
        raise FormatError(f"the operator {name} of node {node.name!r} cannot be saved")
    return name


def _to_json(value: Any) -> Any:
    """Plain JSON values as they are; everything else as {"kind": value}."""
    if isinstance(value, fx.Node):
        return {"node": value.name}
    if isinstance(value, tuple | list):
        kind = "tuple" if isinstance(value, tuple) else "list"
        return {kind: [_to_json(v) for v in value]}
    if isinstance(value, dict):
        return {"dict": {k: _to_json(v) for k, v in value.items()}}
    if isinstance(value, slice):
        return {"slice": [_to_json(v) for v in (value.start, value.stop, value.step)]}
    if isinstance(value, float) and not math.isfinite(value):
        return {"float": str(value)}
    if isinstance(value, complex):
        return {"complex": [value.real, value.imag]}
    if isinstance(value, torch.dtype | torch.layout | torch.memory_format):
        return {"torch": str(value).removeprefix("torch.")}
    if isinstance(value, torch.device):
        return {"device": str(value)}
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise FormatError(f"a graph argument of type {type(value).__name__} cannot be saved")


def _from_json(value: Any, nodes: dict[str, fx.Node]) -> Any:
    if not isinstance(value, dict):
        if value is None or isinstance(value, bool | int | float | str):
            return value
        raise FormatError(f"unexpected {type(value).__name__} in the graph")
    ((kind, inner),) = value.items()
    if kind == "node":
        return nodes[inner]
    if kind in ("tuple", "list", "slice"):
        make = {"tuple": tuple, "list": list, "slice": lambda parts: slice(*parts)}[kind]
        return make([_from_json(v, nodes) for v in inner])
    if kind == "dict":
        return {_checked(NAME, k): _from_json(v, nodes) for k, v in inner.items()}
    if kind == "float":
        return float(inner)
    if kind == "complex":
        return complex(*map(float, inner))
    if kind == "device":
        return torch.device(inner)
    if kind == "torch" and isinstance(inner, str) and inner in TORCH_VALUES:
        return TORCH_VALUES[inner]
    raise FormatError(f"unknown value {kind!r} in the graph")


def _find_operator(name: str) -> Any:
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
        f"the operator {name[:80]!r} is not among those a file may hold (octavo/allowed.py)"
    )


def _checked(pattern: re.Pattern[str], name: Any) -> str:
    """The name, if it is one; FormatError otherwise."""
    if isinstance(name, str) and pattern.fullmatch(name) and not keyword.iskeyword(name):
        return name
    raise FormatError(f"{str(name)[:80]!r} is not a name that a file may hold")


def _graph_from_json(data: list[dict[str, Any]], tensors: dict[str, Tensor]) -> fx.Graph:
    graph = fx.Graph()
    nodes: dict[str, fx.Node] = {}
    if len(data) > MOST_NODES:
        raise FormatError(f"a graph of {len(data)} nodes is larger than any that save writes")
    if [item["op"] for item in data].index("output") != len(data) - 1:
        raise FormatError("a graph has one output, at its end")
    for item in data:
        op, target = item["op"], item["target"]
        if op not in ("placeholder", "get_attr", "call_function", "output"):
            raise FormatError(f"a file cannot hold a node of kind {op!r}")
        args, kwargs = (_from_json(item.get(k), nodes) for k in ("args", "kwargs"))
        if op == "call_function":
            target = _find_operator(target)
        elif op == "placeholder":
            target = _checked(NAME, target)
        elif op == "get_attr" and target not in tensors:
            raise FormatError(f"the graph reads a tensor {target!r} that the file does not hold")
        name = _checked(NAME, item["name"])
        if name in nodes:
            raise FormatError(f"two nodes are named {name!r}")
        if op == "call_function":
            check_arguments(target, args or (), kwargs or {})
        node = graph.create_node(op, target, args or (), kwargs or {}, name)
        node.meta["nn_module_stack"] = {"": (str(item.get("path", "")), "")}
        nodes[name] = node
    graph.lint()
    return graph
