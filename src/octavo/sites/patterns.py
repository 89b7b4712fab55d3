"""The pattern language, the registry of rules, and the matcher.

A pattern is a module type (`nn.ReLU`), a function (`operator.add`, `F.relu`), an ATen operator
(`torch.ops.aten.elu` or one overload), a name (`"relu"`: an operator, or a method of a traced
graph), or a nested tuple with the last operator first: `(nn.ReLU, (nn.BatchNorm2d, nn.Conv2d))`
is a relu of a batch norm of a convolution. `ANY` stands for any input.
"""

import functools
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import fx, nn
from torch._ops import OpOverload, OpOverloadPacket

from ..errors import PatternError
from ..graph.notes import has_folded_batch_norm
from ..graph.operators import ALIASES

Pattern = Any
Handler = Callable[..., Any]


class ANY:
    """A pattern for any one input, matched or not: `(operator.add, ANY, nn.Conv2d)`."""


aten = torch.ops.aten


@functools.cache
def aten_packet(element: Any) -> OpOverloadPacket | OpOverload | None:
    """The ATen operator a pattern element means in an exported graph; None if there is none.

    >>> aten_packet(nn.ReLU) is aten_packet(torch.relu) is torch.ops.aten.relu
    True
    """
    if isinstance(element, OpOverload | OpOverloadPacket):
        return element
    if isinstance(element, str):
        name: str | None = element.removeprefix("aten.")
    elif isinstance(element, type):
        name = next((ALIASES[t] for t in element.__mro__ if t in ALIASES), None)
    else:
        name = ALIASES.get(element) or getattr(element, "__name__", None)
    packet, _, overload = (name or "").partition(".")
    found = getattr(aten, packet, None) if packet.isidentifier() else None
    return getattr(found, overload, None) if found is not None and overload else found


def activation_inputs(node: fx.Node) -> list[fx.Node]:
    """The inputs of an ATen node that are computed, not weights: what a pattern's inputs match."""
    return [n for n in node.all_input_nodes if n.op != "get_attr"]


class Registry(dict[Pattern, Handler]):
    """A table pattern -> rule, in order of registration."""

    def register(self, pattern: Pattern) -> Callable[[Handler], Handler]:
        """Decorator that registers a rule under `pattern`; stackable."""
        check_pattern(pattern)

        def enter(handler: Handler) -> Handler:
            self.pop(pattern, None)  # a pattern registered again moves to its new place
            self[pattern] = handler
            return handler

        return enter


DEFAULT_PATTERNS = Registry()


def register_pattern(pattern: Pattern) -> Callable[[Handler], Handler]:
    """Decorator: use the class below for what `pattern` matches, in every later `quantize`.

    >>> import octavo, torch
    >>> @octavo.register_pattern(torch.nn.Softsign)
    ... @octavo.register_pattern("softsign")
    ... class Softsign(octavo.FloatOp):
    ...     "x / (1 + |x|) in float, read and written by int8 neighbours"

    The longest matching pattern wins; of equally long ones, the one registered first. Raises
    PatternError if the pattern is none of the forms in this module's docstring.
    """
    return DEFAULT_PATTERNS.register(pattern)


def check_pattern(pattern: Pattern) -> None:
    """Raise PatternError, saying why, unless `pattern` is well formed."""
    if isinstance(pattern, tuple):
        if not pattern:
            raise PatternError("an empty tuple is not a pattern")
        if isinstance(pattern[0], tuple):
            raise PatternError(
                f"pattern {pattern!r} starts with a tuple: the last operator comes first, "
                "its inputs follow, as in (nn.ReLU, (nn.BatchNorm2d, nn.Conv2d))"
            )
        for element in pattern:
            check_pattern(element)
    elif not (callable(element := pattern) or isinstance(element, str)):
        raise PatternError(
            f"{pattern!r} is not a pattern: use a module type, a function, an ATen operator, "
            "a name, or a tuple of them"
        )


def size(pattern: Pattern) -> int:
    """How many nodes a pattern covers."""
    if isinstance(pattern, tuple):
        return sum(size(p) for p in pattern)
    return 0 if pattern is ANY else 1


def match(
    node: Any, pattern: Pattern, modules: Mapping[str, nn.Module], inner: bool = False
) -> list[fx.Node] | None:
    """The nodes `pattern` covers when its root is `node`, inputs first; None if it does not match.

    All but the root must have one user, and each tuple as many inputs as its node.
    """
    if pattern is ANY:
        return []
    if not isinstance(node, fx.Node) or (inner and len(node.users) != 1):
        return None
    head, *inputs = pattern if isinstance(pattern, tuple) else (pattern,)
    if has_folded_batch_norm(node) and _is_batch_norm(head) and len(inputs) == 1:
        return match(node, inputs[0], modules)  # a folded batch norm still matches
    if not _matches_one(node, head, modules):
        return None
    if not inputs:
        return [node]
    exported = isinstance(node.target, OpOverload)
    args = activation_inputs(node) if exported else node.args
    if len(args) != len(inputs):
        return None
    covered = [match(a, p, modules, inner=True) for a, p in zip(args, inputs, strict=True)]
    if any(c is None for c in covered):
        return None
    return [n for c in covered if c is not None for n in c] + [node]


def _is_batch_norm(element: Any) -> bool:
    return aten_packet(element) in (aten.batch_norm, aten.batch_norm.default)


def _matches_one(node: fx.Node, element: Any, modules: Mapping[str, nn.Module]) -> bool:
    if isinstance(node.target, OpOverload):
        meant = aten_packet(element)
        return meant is not None and meant in (node.target, node.target.overloadpacket)
    if isinstance(element, type) and issubclass(element, nn.Module):
        return node.op == "call_module" and isinstance(modules[str(node.target)], element)
    if callable(element):
        return node.op == "call_function" and node.target is element
    return bool(node.target == element)


def find_matches(
    graph: fx.Graph, modules: Mapping[str, nn.Module], patterns: Mapping[Pattern, Handler]
) -> list[tuple[list[fx.Node], Handler]]:
    """Disjoint matches in graph order: the nodes covered (root last) and the handler to call.

    From the end of the graph backwards each node not yet covered takes the longest pattern that
    fits there and covers nothing already covered; ties go to the earlier registration.
    """
    longest_first = sorted(patterns.items(), key=lambda item: -size(item[0]))
    taken: set[fx.Node] = set()
    found = []
    for node in reversed(graph.nodes):
        for pattern, handler in longest_first if node not in taken else ():
            covered = match(node, pattern, modules)
            if covered and taken.isdisjoint(covered):
                taken.update(covered)
                found.append((covered, handler))
                break
    return found[::-1]
