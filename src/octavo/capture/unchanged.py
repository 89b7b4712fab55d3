"""Leaves the user's model as it was, whatever its forward does while it is traced and run."""

from __future__ import annotations

import contextlib
import functools
import sys
from collections import deque
from collections.abc import Iterator
from types import FunctionType, MethodType, ModuleType
from typing import Any

import torch
from torch import Tensor, nn

CONTAINERS = (dict, list, set, deque)
CACHE = type(functools.lru_cache(len))
ATOMS = (Tensor, type, ModuleType, str, bytes, int, float, complex, torch.dtype, torch.device)
MOST_OBJECTS = 200_000  # a model that holds its whole application is not searched to the end


@contextlib.contextmanager
def unchanged(model: nn.Module) -> Iterator[None]:
    """Within it the model is in eval mode; afterwards it is as before, whatever happened.

    Tables made on first use, caches by shape, lists that forward or a hook appends to, buffers
    that forward updates: tracing would fill them with tensors without data, and running would
    advance them. Restored are the attributes, containers and objects that can be reached from the
    modules, their hooks and the Python modules that define them, and the contents of buffers and
    other tensors that are no parameters. Grown caches of `functools.lru_cache` are emptied.
    """
    found = list(_reachable(model))
    contents = [(o, _content(o)) for o in found if isinstance(o, CONTAINERS)]
    caches = [(f, f.cache_info().currsize) for f in found if isinstance(f, CACHE)]
    tensors = [(t, t._version, t.detach().clone()) for t in _written(model)]
    try:
        for m in model.modules():
            m.training = False
        yield
    finally:
        for container, before in contents:
            _restore(container, before)
        for cache, size in caches:
            if cache.cache_info().currsize != size:
                cache.cache_clear()
        with torch.no_grad():
            for tensor, version, values in tensors:
                if tensor._version != version:
                    tensor.copy_(values)


def _written(model: nn.Module) -> Iterator[Tensor]:
    """The tensors that forward may write to: buffers, and plain attributes of modules."""
    for m in model.modules():
        for value in (*m._buffers.values(), *vars(m).values()):
            if isinstance(value, Tensor) and not value.is_inference():
                yield value


def _reachable(model: nn.Module) -> Iterator[Any]:
    """Everything that the modules, their containers, hooks and closures refer to, each once."""
    seen: set[int] = set()
    todo: deque[Any] = deque([model])
    while todo and len(seen) < MOST_OBJECTS:
        found = todo.popleft()
        if isinstance(found, ATOMS) or id(found) in seen:
            continue
        seen.add(id(found))
        yield found
        todo.extend(_parts(found))


def _parts(found: Any) -> Iterator[Any]:
    """What an object refers to directly."""
    if isinstance(found, dict):
        yield from found.values()
    elif isinstance(found, list | tuple | set | frozenset | deque):
        yield from found
    elif isinstance(found, MethodType):
        yield found.__self__
    elif isinstance(found, functools.partial):
        yield from (found.func, found.args, found.keywords)
    elif isinstance(found, FunctionType):
        for cell in found.__closure__ or ():
            with contextlib.suppress(ValueError):  # an empty cell
                yield cell.cell_contents
    elif isinstance(attributes := getattr(found, "__dict__", None), dict):
        yield attributes
        if isinstance(found, nn.Module):
            yield from _shared(type(found))


def _shared(kind: type) -> Iterator[Any]:
    """Containers and caches of a user's class, and of the Python module that defines it."""
    for base in kind.__mro__:
        if base.__module__.partition(".")[0] not in ("torch", "builtins", "abc", "typing"):
            around = vars(sys.modules.get(base.__module__, base))
            for value in (*vars(base).values(), *around.values()):
                if isinstance(value, (*CONTAINERS, CACHE)):
                    yield value


def _kind(container: Any) -> Any:
    """The class of Python's that a container is one of, whose methods no subclass has changed."""
    return next(c for c in type(container).__mro__ if c.__module__ in ("builtins", "collections"))


def _content(container: Any) -> list[Any]:
    """The items of a container; pairs of those of a dict."""
    kind = _kind(container)
    return [*(kind.items if issubclass(kind, dict) else kind.__iter__)(container)]


def _restore(container: Any, before: list[Any]) -> None:
    """Put the former items back, if others have taken their place."""
    kind, now = _kind(container), _content(container)
    pairs = zip(now, before, strict=False)
    if issubclass(kind, dict):
        same = all(a[0] is b[0] and a[1] is b[1] for a, b in pairs)
    else:
        same = all(a is b for a, b in pairs)
    if same and len(now) == len(before):
        return
    kind.clear(container)
    if issubclass(kind, dict):
        for key, value in before:
            kind.__setitem__(container, key, value)
    else:
        (kind.extend if issubclass(kind, list | deque) else kind.update)(container, before)
