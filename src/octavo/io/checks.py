"""Checks for `octavo.load`, which trusts nothing in a file."""

from __future__ import annotations

import json
import keyword
import re
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, fx
from torch._ops import HigherOrderOperator, OpOverload

from ..errors import FormatError
from ..graph.qdq_checks import scale_faults

# A graph of 10,000 nodes takes some 3 MB; as Python objects JSON takes up to 30 times its size.
LARGEST_METADATA = 1 << 24  # characters
MOST_NODES = 1 << 16
# A graph becomes Python source when it is compiled: names must be no more than names.
NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,255}")
PATH = re.compile(r"[A-Za-z0-9_]+(\.[A-Za-z0-9_]+)*")

Numbers = int | float | bool
# Types of an operator's schema -> whether a graph's argument may stand there.
KINDS: dict[str, Callable[[Any], bool]] = {
    "Tensor": lambda a: isinstance(a, fx.Node | Numbers | complex),  # x * 2 is mul.Tensor(x, 2)
    # dtypes, layouts and memory formats are numbers in a schema; sizes may be computed
    "int": lambda a: isinstance(
        a, int | fx.Node | torch.dtype | torch.layout | torch.memory_format
    ),
    "float": lambda a: isinstance(a, Numbers | fx.Node),
    "number": lambda a: isinstance(a, Numbers | complex | fx.Node),
    "bool": lambda a: isinstance(a, bool | fx.Node),
    "str": lambda a: isinstance(a, str),
    "Device": lambda a: isinstance(a, torch.device),
}


# Operators that run graphs: the kinds of their arguments in order; the last may be repeated.
REGIONS: dict[str, str] = {
    "cond": "bool graph graph values",
    "while_loop": "graph graph values values",
    "map_impl": "graph values values",
    "scan": "graph values values values",
    "wrap_with_autocast": "str dtype bool bool graph operand*",
    "wrap_with_set_grad_enabled": "bool graph operand*",
}
REGION_KINDS: dict[str, Callable[[Any], bool]] = {
    "bool": lambda a: a is None or isinstance(a, bool | fx.Node),
    "str": lambda a: a in ("cpu", "cuda", "mps", "xpu"),
    "dtype": lambda a: a is None or isinstance(a, torch.dtype),
    "graph": lambda a: isinstance(a, fx.Node) and a.op == "get_attr",
    "operand": lambda a: isinstance(a, fx.Node | Numbers),
    "values": lambda a: (
        isinstance(a, list | tuple) and all(isinstance(v, fx.Node | Numbers) for v in a)
    ),
}


def unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """For json.loads: an object whose keys are all different; FormatError otherwise."""
    found = dict(pairs)
    if len(found) != len(pairs):
        raise FormatError("an object in the file has a key twice")
    return found


def parsed(text: str) -> Any:
    """JSON from a file; FormatError for an object with a key twice."""
    return json.loads(text, object_pairs_hook=unique_keys)


def checked(pattern: re.Pattern[str], name: Any) -> str:
    """The name, if it is one by `pattern`, NAME or PATH; FormatError otherwise."""
    if isinstance(name, str) and pattern.fullmatch(name) and not keyword.iskeyword(name):
        return name
    raise FormatError(f"{str(name)[:80]!r} is not a name that a file may hold")


def check_arguments(target: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    """Number, names and types of an operator's arguments, by its schema; raises FormatError."""
    if not isinstance(target, OpOverload):
        expected = REGIONS.get(getattr(target, "__name__", ""))
        if isinstance(target, HigherOrderOperator) and (kwargs or not _takes(expected, args)):
            raise FormatError(f"{target.__name__} does not take these arguments")
        return
    schema = {a.name: a for a in target._schema.arguments}
    positional = [a for a in schema.values() if not a.kwarg_only]
    if len(args) > len(positional):
        raise FormatError(f"{target} takes {len(positional)} arguments, not {len(args)}")
    given = {a.name: value for a, value in zip(positional, args, strict=False)}
    for name, value in kwargs.items():
        if name not in schema or name in given:
            raise FormatError(f"{target} has no argument {name!r} left to give")
        given[name] = value
    for name, a in schema.items():
        if name not in given:
            if not a.has_default_value():
                raise FormatError(f"{target} lacks its argument {name!r}")
        elif not _fits(str(a.type), given[name]):
            found = type(given[name]).__name__
            raise FormatError(f"argument {name!r} of {target} is a {found}, not {a.type}")


def _takes(kinds: str | None, args: tuple[Any, ...]) -> bool:
    """Whether an operator that runs graphs takes these arguments."""
    if kinds is None:
        return False
    *first, last = kinds.split()
    repeated = last.endswith("*")
    wanted = [*first, *[last.rstrip("*")] * (len(args) - len(first) if repeated else 1)]
    return len(wanted) == len(args) and all(
        REGION_KINDS[kind](a) for kind, a in zip(wanted, args, strict=True)
    )


def _fits(kind: str, value: Any) -> bool:
    """Whether a value may stand for a type such as "Optional[List[int]]"."""
    outer, _, inner = kind.partition("[")
    if outer == "Optional":
        return value is None or _fits(inner[:-1], value)
    if outer == "List":
        if not isinstance(value, list | tuple):  # one number may stand for all
            return _fits(inner[:-1], value)
        return all(_fits(inner[:-1], v) for v in value)
    return outer in KINDS and KINDS[outer](value)


def check_scales(graph: fx.Graph, tensors: Mapping[str, Tensor]) -> None:
    """Scales are positive and finite, zero_points and bounds are integers of the type."""
    for fault in scale_faults(graph, tensors):
        raise FormatError(fault)
