"""The branches on sizes that forward took while it was traced, as conditions on a call's shapes."""

from __future__ import annotations

import ast
import functools
import itertools
import math
import re
from collections.abc import Mapping, Sequence
from types import CodeType
from typing import Any

import sympy
from sympy.printing.precedence import PRECEDENCE
from torch import fx
from torch.utils._sympy.printers import PythonPrinter

Place = tuple[int, int]  # input, dimension
ALLOWED = (
    *(ast.Expression, ast.Compare, ast.BoolOp, ast.UnaryOp, ast.BinOp, ast.Subscript, ast.Call),
    *(ast.Name, ast.Constant, ast.Load, ast.Add, ast.Sub, ast.Mult, ast.Div, ast.FloorDiv, ast.Mod),
    *(ast.Lt, ast.LtE, ast.Gt, ast.GtE, ast.Eq, ast.NotEq, ast.And, ast.Or, ast.Not, ast.USub),
)
FUNCTIONS = {"max": max, "min": min, "abs": abs, "round": lambda x: round(x),
             "trunc": math.trunc, "floor": math.floor, "ceil": math.ceil}  # fmt: skip
TRAILING_ZEROS = re.compile(r"(\.\d+?)0+\b")
LONGEST = 100  # numbers, sizes and operators of a condition
MOST = 4  # sizes tried that break a condition
NEAR = 8  # sizes this far from those of the call are tried first


def conditions(graph: fx.Graph) -> list[sympy.Basic]:
    """The conditions on sizes that tracing has met, in the symbols of the placeholders' shapes.

    Left out are long ones, since padding and cutting windows again and again doubles them each
    time, and those that `holds` does not take.
    """
    values = [n.meta["val"] for n in graph.find_nodes(op="placeholder")]
    sizes = [d for v in values for d in v.shape if type(d) is not int]
    if not sizes:
        return []
    known = set().union(*(d.node.expr.free_symbols for d in sizes))
    environment = sizes[0].node.shape_env
    lengths: dict[sympy.Basic, int] = {}
    short = (g.expr for g in environment.guards if _length(g.expr, lengths) <= LONGEST)
    found = (environment.replace(condition) for condition in short)
    named = [g for g in dict.fromkeys(found) if g.free_symbols and g.free_symbols <= known]
    return [g for g in named if _is_plain(g)]


def _is_plain(condition: sympy.Basic) -> bool:
    try:
        broken(condition, dict.fromkeys(condition.free_symbols, 2))
    except ValueError:
        return False
    return True


def _length(part: sympy.Basic, known: dict[sympy.Basic, int]) -> int:
    """How many numbers, sizes and operators an expression has; it may share parts."""
    if part not in known:
        known[part] = 1 + sum(_length(p, known) for p in part.args)
    return known[part]


def as_text(condition: sympy.Basic, places: Mapping[Any, Place]) -> str:
    """The condition in Python: `input0[1] <= 50` for dimension 1 of the first input."""
    names = {s: sympy.Symbol("input{}[{}]".format(*places[s])) for s in condition.free_symbols}
    return _printed(condition.xreplace(names))


def holds(text: str, shapes: Sequence[Sequence[int]]) -> bool:
    """Whether a condition is true of a call; ValueError if it is not a condition on sizes.

    >>> holds("input0[1] <= 50", [(4, 60)])
    False
    """
    return _is_true(text, {f"input{i}": shape for i, shape in enumerate(shapes)})


def _is_true(text: str, names: Mapping[str, Any]) -> bool:
    try:
        return bool(eval(_compiled(text), {"__builtins__": FUNCTIONS}, names))
    except ZeroDivisionError:
        return False
    except (NameError, IndexError, TypeError, ValueError, ArithmeticError) as e:
        raise ValueError(f"{text!r} is not a condition on sizes: {e}") from e


class _Printer(PythonPrinter):
    """Leaves out what makes real numbers of integers, which Python does by itself."""

    def _print_ToFloat(self, expr: sympy.Expr) -> str:  # noqa: N802 (sympy's name)
        return self.parenthesize(expr.args[0], PRECEDENCE["Atom"] - 0.5)


@functools.cache
def _printed(condition: sympy.Basic) -> str:
    return TRAILING_ZEROS.sub(r"\1", str(_Printer().doprint(condition)).replace("math.", ""))


@functools.cache
def _compiled(text: str) -> CodeType:
    try:
        tree = ast.parse(text, mode="eval")
    except (SyntaxError, RecursionError) as e:
        raise ValueError(f"{text!r} is not a condition on sizes") from e
    nodes = [*ast.walk(tree)]
    numbers = [n.value for n in nodes if isinstance(n, ast.Constant)]
    if not all(isinstance(n, ALLOWED) for n in nodes) or any(
        type(n) not in (int, float) for n in numbers
    ):
        raise ValueError(f"{text!r} is not a condition on sizes")
    return compile(tree, "condition", "eval")


def broken(condition: sympy.Basic, sizes: Mapping[Any, int]) -> bool:
    """Whether a condition is false at these sizes, or has no value."""
    return not _is_true(_printed(condition), {str(s): n for s, n in sizes.items()})


def only(condition: sympy.Basic, sizes: Mapping[Any, int]) -> Any:
    """The symbol of which a condition allows no other size than this one; None if there is none.

    Other sizes are tried up to twice this one.
    """
    if not isinstance(condition, sympy.Eq) or len(condition.free_symbols) != 1:
        return None
    (symbol,) = condition.free_symbols
    size = sizes[symbol]
    others = (n for n in range(1, 2 * size + NEAR) if n != size)
    return symbol if all(broken(condition, {symbol: n}) for n in others) else None


def breaking(condition: sympy.Basic, sizes: Mapping[Any, int]) -> list[dict[Any, int]]:
    """A few sizes near those given at which a condition is false.

    The nearest larger and smaller ones of one symbol, then of all that it names at once.
    """
    found: list[dict[Any, int]] = []
    numbers = {abs(int(n)) for n in condition.atoms(sympy.Integer)}
    each = sorted(condition.free_symbols, key=str)
    for symbols in [*([s] for s in each), *([each] if len(each) > 1 else [])]:
        size = sizes[symbols[0]]
        near = {size + n for n in range(-NEAR, NEAR + 1)} | {size << n for n in range(1, 12)}
        bounds = {m // n + d for m, n in itertools.product(numbers, numbers | {1}) if n
                  for d in (-1, 0, 1)}  # fmt: skip
        others = {sizes[s] for s in condition.free_symbols}
        tried = sorted((n for n in near | bounds | others if n > 0), key=lambda n: abs(n - size))
        for larger in (True, False):
            side = (n for n in tried if n != size and (n > size) is larger)
            changed = ({**sizes, **dict.fromkeys(symbols, n)} for n in side)
            found += itertools.islice((s for s in changed if broken(condition, s)), 1)
    return found[:MOST]
