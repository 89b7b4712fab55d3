"""Signatures as JSON: how a model is called, and the structure of what it returns.

Structures are written as PyTorch's `treespec_dumps` writes them: {"type", "context",
"children_spec"} for each tuple, list, dict or class that has a name in files. Three kinds of
classes have none there; their types and contexts are ours:

    "octavo.return_types"   {"name": "max"}, of torch.return_types
    "octavo.namedtuple"     {"name": "package.Pair", "fields": ["a", "b"]}
    "octavo.dataclass"      the same, and which fields hold a value, which None

Loading imports no class. A dataclass that the program has registered under the same name is used;
otherwise, and for every named tuple, a class with this name and these fields is made.
"""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import functools
import json
from collections.abc import Callable, Iterator
from typing import Any

import torch
import torch.utils._pytree as pytree

from ..capture.branches import holds
from ..capture.images import Image
from ..capture.signature import Signature
from ..errors import ConfigError, FormatError
from .checks import NAME, checked, parsed
from .graph_json import TORCH_VALUES, decode, encode

LEAF = pytree.tree_structure(0)
RETURN_TYPES: dict[str, Any] = {cls.__name__: cls for cls in torch.return_types.all_return_types}


# ---- signatures


def signature_to_json(signature: Signature) -> dict[str, Any]:
    """As JSON data; FormatError for structures and constants that cannot be written."""
    values = {
        f.name: value
        for f in dataclasses.fields(signature)
        if (value := getattr(signature, f.name)) != f.default
    }
    try:
        return {
            name: structure_to_json(v) if isinstance(v, pytree.TreeSpec) else _as_lists(v)
            for name, v in values.items()
            if name != "images"
        } | ({"images": _images_to_json(signature)} if signature.images else {})
    except FormatError as e:
        raise FormatError(f"the call's structure cannot be saved: {e}") from e


def _images_to_json(signature: Signature) -> list[dict[str, Any]]:
    return [{"argument": name, **dataclasses.asdict(image)} for name, image in signature.images]


def _images_from_json(data: Any) -> Iterator[tuple[str, Image]]:
    for item in data:
        fields = dict(item)
        try:
            yield checked(NAME, fields.pop("argument")), Image(**fields)
        except ConfigError as e:
            raise FormatError(str(e)) from e


def signature_from_json(data: dict[str, Any]) -> Signature:
    """The inverse of `signature_to_json`; FormatError for what a file may not hold."""
    values: dict[str, Any] = {
        name: structure_from_json(v) if name.endswith("_spec") else _as_tuples(v)
        for name, v in data.items()
        if name != "images"
    }
    signature = Signature(**values, images=tuple(_images_from_json(data.get("images", ()))))
    for dtype, _ in signature.inputs:
        if not isinstance(TORCH_VALUES.get(dtype), torch.dtype):
            raise FormatError(f"{str(dtype)[:80]!r} is not a dtype of an input")
    shapes = [[2 if d is None else d for d in shape] for _, shape in signature.inputs]
    for condition in signature.branches:
        try:
            holds(str(condition), shapes)
        except ValueError as e:
            raise FormatError(str(e)) from e
    return signature


def _as_lists(value: Any) -> Any:
    return [_as_lists(v) for v in value] if isinstance(value, tuple) else encode(value)


def _as_tuples(value: Any) -> Any:
    return tuple(_as_tuples(v) for v in value) if isinstance(value, list) else decode(value, {})


# ---- structures


def structure_to_json(spec: pytree.TreeSpec) -> str:
    """A structure as text; FormatError for one whose loading would import a module.

    >>> Pair = collections.namedtuple("Pair", "a b")
    >>> again = structure_from_json(structure_to_json(pytree.tree_structure(Pair(1, [2]))))
    >>> pytree.tree_unflatten([3, 4], again)
    Pair(a=3, b=[4])
    """
    return json.dumps([1, _to_json(spec)])


def structure_from_json(text: str) -> pytree.TreeSpec:
    """The inverse of `structure_to_json`; FormatError for a structure that a file may not hold."""
    _, data = parsed(text)
    return _from_json(data)


def is_plain(text: str) -> bool:
    """Whether readers of the first format know every type in a structure."""
    return '"octavo.' not in text


def _to_json(spec: pytree.TreeSpec) -> dict[str, Any]:
    if spec.is_leaf():
        return {"type": None, "context": None, "children_spec": []}
    try:
        _, data = json.loads(pytree.treespec_dumps(pytree.TreeSpec(spec.type, spec.context, [])))
        _check_context(data)
    except (NotImplementedError, TypeError) as e:
        if (data := _own(spec)) is None:
            raise FormatError(
                f"{e}\nA class of your own needs a name in files: "
                'torch.export.register_dataclass(Kind, serialized_type_name="package.Kind")'
            ) from e
    return data | {"children_spec": [_to_json(child) for child in spec.children()]}


def _own(spec: pytree.TreeSpec) -> dict[str, Any] | None:
    """Type and context of a class that has no name in PyTorch's files, if it is of a known kind."""
    if spec.type in RETURN_TYPES.values():
        return {"type": "octavo.return_types", "context": {"name": spec.type.__name__}}
    if spec.type is collections.namedtuple:
        context = {"name": _name(spec.context), "fields": spec.context._fields}
        return {"type": "octavo.namedtuple", "context": context}
    if dataclasses.is_dataclass(spec.type):
        fields = _fields(spec.type)
        parts = spec.context if isinstance(spec.context, list) else []
        if len(parts) != 2 or not all(isinstance(p, list) and {*p} <= {*fields} for p in parts):
            return None  # registered in a way of its own
        # its context: the fields that hold a value, and those that are None
        context = {"name": _name(spec.type), "fields": fields, "context": spec.context}
        return {"type": "octavo.dataclass", "context": context}
    return None


def _fields(dataclass: Any) -> list[str]:
    return [f.name for f in dataclasses.fields(dataclass)]


def _name(cls: Any) -> str:
    return f"{cls.__module__}.{cls.__qualname__}"


def _from_json(data: dict[str, Any]) -> pytree.TreeSpec:
    kind, children = data["type"], [_from_json(child) for child in data["children_spec"]]
    if kind is None:
        return LEAF
    if kind in OWN:
        cls, context = OWN[kind](data["context"], len(children))
        return pytree.TreeSpec(cls, context, children)
    _check_context(data)
    try:
        spec = pytree.treespec_loads(json.dumps([1, data | {"children_spec": []}]))
    except NotImplementedError as e:
        raise FormatError(
            f"the model takes or returns a {str(kind)[:80]!r}, a class that this program does not "
            "know: import the package that registers it before loading"
        ) from e
    return pytree.TreeSpec(spec.type, spec.context, children)


# ---- the classes


def _return_type(context: Any, size: int) -> tuple[Any, Any]:
    cls = RETURN_TYPES.get(context["name"])
    if cls is None or cls.n_sequence_fields != size:
        raise FormatError(f"{str(context['name'])[:80]!r} is no type of torch.return_types")
    return cls, None


def _namedtuple(context: Any, size: int) -> tuple[Any, Any]:
    fields = tuple(checked(NAME, field) for field in context["fields"])
    if len(fields) != size:
        raise FormatError(f"a named tuple of {len(fields)} fields holds {size} values")
    return collections.namedtuple, _made_namedtuple(_last(context["name"]), fields)


def _dataclass(context: Any, size: int) -> tuple[Any, Any]:
    fields = tuple(checked(NAME, field) for field in context["fields"])
    given, absent = ([checked(NAME, field) for field in names] for names in context["context"])
    if len(given) != size or not {*given, *absent} <= set(fields):
        raise FormatError(f"a dataclass of {len(fields)} fields holds {size} values")
    for cls in list(pytree.SUPPORTED_NODES):
        known = dataclasses.is_dataclass(cls) and _name(cls) == context["name"]
        if known and {*given, *absent} <= {*_fields(cls)}:
            return cls, [given, absent]
    return _made_dataclass(_last(context["name"]), fields), [given, absent]


def _last(name: str) -> str:
    return checked(NAME, name.rpartition(".")[2])


@functools.lru_cache(maxsize=256)
def _made_namedtuple(name: str, fields: tuple[str, ...]) -> type:
    return collections.namedtuple(name, fields)  # type: ignore[misc]


@functools.lru_cache(maxsize=256)
def _made_dataclass(name: str, fields: tuple[str, ...]) -> type:
    made = dataclasses.make_dataclass(name, [(f, Any, None) for f in fields])
    pytree.register_dataclass(made)
    return made


OWN: dict[str, Callable[[Any, int], tuple[Any, Any]]] = {
    "octavo.return_types": _return_type,
    "octavo.namedtuple": _namedtuple,
    "octavo.dataclass": _dataclass,
}


def _check_context(data: dict[str, Any]) -> None:
    """Reject a node of PyTorch's whose loading would import.

    PyTorch's loader imports modules that a context names as an object: the factory of a
    defaultdict, an enum as a key. A context, parsed as PyTorch will parse it, may hold only plain
    keys, lists of them and lists of these lists.
    """
    context = data["context"]
    if isinstance(context, str):
        with contextlib.suppress(json.JSONDecodeError):  # then it is a name, and no object
            context = parsed(context)
    items = context if isinstance(context, list) else [context]
    # a dataclass has two lists of names
    single = [i for item in items for i in (item if isinstance(item, list) else [item])]
    if not all(i is None or isinstance(i, str | int) for i in single):
        raise FormatError(f"the structure {str(data['type'])[:80]!r} is not one a file may hold")
