"""What must be the same: two outputs of a network, and a model before and after."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses import FakeTensor
from torch.utils import _pytree as pytree

QUIET = 1e-7  # smaller differences are none, relative to 1
CANCELLED = 1e-5  # the same beside zeros, which may be what is left of a sum of larger numbers


def difference(expected: Any, got: Any) -> str | None:
    """How structure, types, shapes or dtypes differ, if they do."""
    ours, theirs = pytree.tree_structure(got), pytree.tree_structure(expected)
    if ours != theirs:
        return f"structure {_words(ours)} instead of {_words(theirs)}"
    pairs = zip(pytree.tree_leaves(expected), pytree.tree_leaves(got), strict=True)
    for i, (e, g) in enumerate(pairs):
        if not isinstance(e, Tensor):
            if type(e) is not type(g) or e != g:
                return f"output {i} is {g!r} instead of {e!r}"
        elif not isinstance(g, Tensor):
            return f"output {i} is a {type(g).__name__} instead of a tensor"
        elif e.shape != g.shape:
            return f"output {i} has shape {tuple(g.shape)} instead of {tuple(e.shape)}"
        elif e.dtype != g.dtype:
            return f"output {i} has dtype {g.dtype} instead of {e.dtype}"
    return None


def noise(expected: Any, got: Any, quiet: float = QUIET) -> float:
    """SQNR in dB of the worst output, infinite if all are equal; both have one structure.

    Integers and booleans follow from rounded numbers: only where more than half differ, it is 0.
    Errors up to `quiet` (root of the mean square) are none, beside zeros those up to `CANCELLED`.
    """
    pairs = zip(pytree.tree_leaves(expected), pytree.tree_leaves(got), strict=True)
    return min((_db(e, g, quiet) for e, g in pairs if isinstance(e, Tensor)), default=math.inf)


def _db(expected: Tensor, got: Tensor, quiet: float) -> float:
    if not expected.is_floating_point():
        return 0.0 if (expected != got).float().mean() > 0.5 else math.inf
    e, g = expected.double(), got.double()
    if not bool(g.isfinite().all()):
        return -math.inf
    signal, error = float(e.square().mean()), float((e - g).square().mean())
    if error <= (quiet if signal else CANCELLED) ** 2:
        return math.inf
    return 10 * math.log10(signal / error) if signal else -math.inf


def unequal(expected: Any, got: Any) -> bool:
    """Whether any value differs in any bit."""
    pairs = zip(pytree.tree_leaves(expected), pytree.tree_leaves(got), strict=True)
    return any(isinstance(e, Tensor) and not torch.equal(e, g) for e, g in pairs)


def state(model: nn.Module) -> dict[str, Any]:
    """Everything that can be reached from a model, by path; tensors with a copy of their values."""
    return dict(_walk(model, "model", set()))


def changed(before: dict[str, Any], model: nn.Module) -> str | None:
    """What differs from the state before, if anything does."""
    after = state(model)
    if lost := before.keys() ^ after.keys():
        return f"attributes came or went: {sorted(lost)[:3]}"
    for path, (kind, value) in after.items():
        old_kind, old = before[path]
        if isinstance(value, FakeTensor):
            return f"{path} is a FakeTensor"
        differ = unequal(old, value) if isinstance(value, Tensor) else old != value
        if kind != old_kind or differ:
            return f"{path} was {old_kind}, {str(old)[:60]} and is {kind}, {str(value)[:60]}"
    return None


def _walk(value: Any, path: str, seen: set[int]) -> Iterator[tuple[str, tuple[str, Any]]]:
    if isinstance(value, FakeTensor):
        yield path, ("FakeTensor", value)
    elif isinstance(value, Tensor):
        kind = f"{type(value).__name__} {value.dtype} {value.requires_grad} {id(value)}"
        yield path, (kind, value.detach().clone())
    elif isinstance(value, nn.Module | dict | list | tuple):
        if id(value) in seen:
            return
        seen.add(id(value))
        items = vars(value) if isinstance(value, nn.Module) else value
        pairs = items.items() if isinstance(items, dict) else enumerate(items)
        yield path, (type(value).__name__, len(items))
        for name, item in pairs:
            yield from _walk(item, f"{path}.{name}", seen)
    else:
        plain = isinstance(value, int | float | str | bool | None)
        yield path, (type(value).__name__, value if plain else id(value))


def _words(spec: pytree.TreeSpec) -> str:
    return str(pytree.tree_unflatten(["*"] * spec.num_leaves, spec)).replace("'*'", "*")
