"""The second look: does the captured graph compute what the model computes, at other sizes too?

torch.export follows one call. A loop over the batch is unrolled, a table that the model keeps for
one shape becomes a constant, a branch on a size is taken once; the graph then computes something
else at another size, without an error. So graph and model are run side by side: on the call
itself, and at another value of every size that is free.
"""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
import torch.utils._pytree as pytree
from torch import Tensor, fx, nn

from ..errors import CaptureError, DataError, one_line
from ..graph.compare import EXACT, difference
from ..graph.interpreter import Interpreter, observe_values
from ..graph.names import describe, module_path
from ..graph.operators import Kind, operator_of
from .examples import Shapes, resized
from .inplace import draws_random
from .signature import Signature
from .unchanged import unchanged

SEVERAL = 3  # samples of a batch that are enough for a comparison
Limits = Mapping[tuple[int, int], str]  # (input, dimension) -> why it is not free


@dataclass(frozen=True)
class Look:
    """What the comparison found.

    fixed: sizes at another value of which the graph is not the model.
    not_one: sizes at which it is the model, unless they are 1.
    shapes: the shapes at which both agreed; first a batch of 1, if possible, then all free sizes
        at another value at once.
    batch: for each input, whether its first dimension counts independent samples.
    """

    fixed: Limits
    not_one: Limits = field(default_factory=dict)
    shapes: tuple[Shapes, ...] = ()
    batch: tuple[bool, ...] = ()


class Run(NamedTuple):
    """The leaves of what a call returns, and its inputs after it."""

    outputs: list[Any]
    inputs: list[Tensor]


class Comparison:
    """Runs the model and the graph captured from it on the same tensors."""

    def __init__(self, model: nn.Module, module: fx.GraphModule, signature: Signature) -> None:
        self.model, self.module, self.signature = model, module, signature
        values = [n.meta["val"] for n in module.graph.find_nodes(op="placeholder")]
        self.fixed: dict[int, Any] = {}  # a size that tracing has fixed -> its symbol
        self.sizes = [[self._symbol(d) for d in v.shape] for v in values]
        self.exact = not draws_random(module.graph)
        self.agreed: list[Shapes] = []

    def _symbol(self, size: Any) -> Any:
        """The expression of a dynamic size; None for a number.

        Where tracing has fixed a size, its own symbol: the graph may be right at others all the
        same, as with recurrent layers. Sizes fixed at the same number are taken for the same.
        """
        if type(size) is int:
            return None
        number = size.node.maybe_as_int()
        return size.node.expr if number is None else self.fixed.setdefault(number, size.node._expr)

    def places(self, symbol: Any) -> list[tuple[int, int]]:
        """The inputs' dimensions of this size."""
        return [(i, d) for i, s in enumerate(self.sizes) for d, n in enumerate(s) if n == symbol]

    def at(self, tensors: Sequence[Tensor], sizes: Mapping[Any, int]) -> list[Tensor]:
        """The tensors with other sizes (by symbol); sizes computed from them follow."""
        have = {n: t.shape[d] for t, s in zip(tensors, self.sizes, strict=True)
                for d, n in enumerate(s) if n is not None}  # fmt: skip
        have |= sizes
        shapes = [
            [int(n.xreplace(have)) if n is not None else t.shape[d] for d, n in enumerate(s)]
            for t, s in zip(tensors, self.sizes, strict=True)
        ]
        return [resized(t, shape) for t, shape in zip(tensors, shapes, strict=True)]

    @torch.no_grad()
    def expected(self, tensors: Sequence[Tensor]) -> Run:
        """What the model returns, and what it leaves in its inputs."""
        inputs = [t.clone() for t in tensors]
        with unchanged(self.model):
            outputs = self.run_model(inputs)
        return Run(pytree.tree_leaves(outputs, is_leaf=lambda x: x is None), inputs)

    @torch.no_grad()
    def run_model(self, tensors: Sequence[Tensor]) -> Any:
        """Call the model, whatever that changes in it."""
        with _seeded():
            args, kwargs = self.signature.call(tensors)
            return self.model(*args, **kwargs)

    @torch.no_grad()
    def difference(self, tensors: Sequence[Tensor], expected: Run) -> str:
        """How the graph's outputs differ from those expected; an empty string if they agree."""
        inputs = [t.clone() for t in tensors]
        with _seeded():
            try:
                got = _Guarded(self.module).run(*inputs)
            except Exception as e:
                return f"an error ({one_line(e)})"
        least = EXACT if self.exact else -torch.inf
        found = difference(expected.outputs, got, least)
        if not found and difference(expected.inputs, inputs, least):
            found = "it writes to its inputs"
        if not found:
            self.agreed.append(_shapes(tensors))
        return found


class _Guarded(Interpreter):
    """Refuses initial states of another batch, beyond which PyTorch's recurrent operators read.

    Only the modules, nn.LSTM and the like, check them; a graph may have fixed their size.
    """

    def call_function(self, target: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Run an operator."""
        if (
            self.at
            and operator_of(self.at).kind is Kind.RECURRENT
            and target._overloadname == "input"
        ):
            x, states, batch_first = args[0], args[1], args[-1]
            count = x.shape[0 if batch_first else 1]
            for state in [states] if isinstance(states, Tensor) else states:
                if state.shape[1] != count:
                    raise ValueError(f"initial states of {state.shape[1]} for {count} samples")
        return super().call_function(target, args, kwargs)


@contextlib.contextmanager
def _seeded() -> Iterator[None]:
    """The same random numbers each time, and no warnings of sizes that only Octavo tries."""
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.manual_seed(0)
        yield


def second_look(
    model: nn.Module, module: fx.GraphModule, signature: Signature, calls: Sequence[list[Tensor]]
) -> Look:
    """Compare the graph with the model; CaptureError if they differ on a call of the data.

    calls: the tensors of one or two calls.
    """
    compare = Comparison(model, module, signature)
    batch = next((s[0] for s in compare.sizes if s and s[0] is not None), None)
    base, outputs = _few(compare, calls, batch)
    if base is calls[0]:
        if found := compare.difference(base, outputs):
            raise CaptureError(_explain(compare, base, found))
    elif reason := _reason(compare, base, outputs, compare.places(batch)):
        return Look(dict.fromkeys(compare.places(batch), reason))
    fixed: dict[tuple[int, int], str] = {}
    not_one: dict[tuple[int, int], str] = {}
    alone: list[Tensor] = base
    counted: tuple[bool, ...] = ()
    if batch is not None:
        places = compare.places(batch)
        size = base[places[0][0]].shape[0]
        for one, outputs_of_one in _runs(compare, base, batch, [1, 2]):
            counted = _counted(compare, batch, outputs, outputs_of_one)
            reason = _reason(compare, one, outputs_of_one, places)
            if not reason:
                alone = one
            elif one[places[0][0]].shape[0] == 1:
                not_one = dict.fromkeys(places, reason)
                fixed |= _other(compare, base, batch, [size + 1, 2 * size])
            else:
                fixed |= dict.fromkeys(places, reason)
            break
        else:
            fixed |= _other(compare, base, batch, [size + 1, 2 * size])
    for symbol in dict.fromkeys(n for s in compare.sizes for n in s):
        if symbol is None or symbol == batch or not symbol.is_Symbol:
            continue
        places = compare.places(symbol)
        i, d = places[0]
        size = base[i].shape[d]
        for one, outputs_of_one in _runs(compare, alone, symbol, [1] if d == 0 else []):
            if reason := _reason(compare, one, outputs_of_one, places):
                not_one |= dict.fromkeys(places, reason)
        seen = [c[i].shape[d] for c in calls]
        fixed |= _other(compare, alone, symbol, [*seen, size + 1, size - 1, 2 * size, size // 2])
    together, reason = _together(compare, alone, fixed)
    fixed |= dict.fromkeys(together, reason) if reason else {}
    agreed = dict.fromkeys([_shapes(alone), *reversed(compare.agreed)])
    return Look(fixed, {p: r for p, r in not_one.items() if p not in fixed}, tuple(agreed), counted)


def _shapes(tensors: Sequence[Tensor]) -> Shapes:
    return tuple(tuple(t.shape) for t in tensors)


def _together(
    compare: Comparison, tensors: Sequence[Tensor], fixed: Limits
) -> tuple[list[tuple[int, int]], str]:
    """All sizes that are free and have agreed at another value, at that value at once.

    The places of those but the first, and how the graph differs from the model there.
    """
    sizes: dict[Any, int] = {}
    places: list[tuple[int, int]] = []
    for symbol in dict.fromkeys(n for s in compare.sizes for n in s if n is not None):
        where = compare.places(symbol)
        i, d = where[0]
        others = {shapes[i][d] for shapes in compare.agreed} - {tensors[i].shape[d]}
        if others and symbol.is_Symbol and not fixed.keys() & set(where):
            places += where if sizes else []
            sizes[symbol] = max(others)
    if len(sizes) < 2:
        return [], ""
    try:
        other = compare.at(tensors, sizes)
        outputs = compare.expected(other)
    except Exception:  # the model does not take these together
        return [], ""
    return places, _reason(compare, other, outputs, places)


def _few(
    compare: Comparison, calls: Sequence[list[Tensor]], batch: Any
) -> tuple[list[Tensor], Run]:
    """A call with few samples but more than one, where the model takes it, and its outputs."""
    first = calls[0]
    if batch is not None:
        i = compare.places(batch)[0][0]
        size = first[i].shape[0]
        few = SEVERAL if size > 1 else 2
        if size == 1 and len(calls) > 1 and [t.shape for t in calls[1]] == [t.shape for t in first]:
            cut = {place[0] for place in compare.places(batch) if place[1] == 0}
            first = [torch.cat(ts) if n in cut else ts[0]
                     for n, ts in enumerate(zip(first, calls[1], strict=True))]  # fmt: skip
        if size != few:
            for run in _runs(compare, first, batch, [few]):
                return run
    try:
        return calls[0], compare.expected(calls[0])
    except Exception as e:
        raise DataError(f"the model itself does not take this call: {e}") from e


def _runs(
    compare: Comparison, tensors: Sequence[Tensor], symbol: Any, sizes: Sequence[int]
) -> Iterator[tuple[list[Tensor], Run]]:
    """The call at those other sizes at which the model itself runs, with its outputs."""
    i, d = compare.places(symbol)[0]
    for size in dict.fromkeys(sizes):
        if size < 1 or size == tensors[i].shape[d]:
            continue
        try:
            other = compare.at(tensors, {symbol: size})
            outputs = compare.expected(other)
        except Exception:  # the model does not take this size: nothing to compare
            continue
        yield other, outputs


def _other(
    compare: Comparison, tensors: Sequence[Tensor], symbol: Any, sizes: Sequence[int]
) -> dict[tuple[int, int], str]:
    """Why a size is not free: the first larger and smaller ones that the model takes tell."""
    places = compare.places(symbol)
    i, d = places[0]
    size = tensors[i].shape[d]
    runs = [
        next(_runs(compare, tensors, symbol, [s for s in sizes if (s > size) == larger]), None)
        for larger in (True, False)
    ]
    for other, outputs in filter(None, runs):
        if reason := _reason(compare, other, outputs, places):
            return dict.fromkeys(places, reason)
    if any(runs):
        return {}
    reason = f"the model itself ran at none of the other sizes tried ({', '.join(map(str, sizes))})"
    return dict.fromkeys(places, reason)


def _reason(
    compare: Comparison,
    tensors: Sequence[Tensor],
    outputs: Run,
    places: Sequence[tuple[int, int]],
) -> str:
    """How the graph differs from the model at this size; an empty string if it does not."""
    found = compare.difference(tensors, outputs)
    sizes = [f"at {tensors[i].shape[d]} " for i, d in places[:1]]
    return found and (
        f"{''.join(sizes)}the graph captured from the model differs from it: {found}. Its forward "
        "may loop over this size, or keep something made for one size"
    )


def _counted(compare: Comparison, batch: Any, outputs: Run, of_part: Run) -> tuple[bool, ...]:
    """Whether the first dimension counts independent samples, for each input.

    It does if the last samples alone give the last part of each output, or the same as all.
    """
    counts = [bool(s) and s[0] == batch for s in compare.sizes]
    whole, part = ([t for t in run.outputs if isinstance(t, Tensor)] for run in (outputs, of_part))
    for w, p in zip(whole, part, strict=False):
        rows = w[len(w) - len(p) :] if w.dim() and p.dim() and len(p) <= len(w) else w
        if difference([rows], [p]) and difference([w], [p]):
            return ()
    return tuple(counts) if compare.exact and len(whole) == len(part) else ()


def _explain(compare: Comparison, tensors: Sequence[Tensor], found: str) -> str:
    """Which module's output is the first to differ."""
    seen: dict[str, Any] = {}

    def hook(path: str) -> Any:
        return lambda module, args, output: seen.setdefault(path, output)

    with unchanged(compare.model):
        for path, module in compare.model.named_modules():
            if not [*module.children()]:
                module.register_forward_hook(hook(path))
        compare.run_model([t.clone() for t in tensors])
    last: dict[str, tuple[fx.Node, Any]] = {}
    observe_values(
        compare.module, tensors, lambda node, value: last.update({module_path(node): (node, value)})
    )
    first = next((last[p][0] for p, o in seen.items()
                  if p in last and difference([o], [last[p][1]])), None)  # fmt: skip
    where = f" The first to differ is {describe(first)}." if first else ""
    return (
        f"on the calibration data, the graph captured from {type(compare.model).__name__} differs "
        f"from the model: {found}.{where}\nOften forward depends on more than its "
        "arguments: a counter, a cache, random numbers of Python or numpy. Make that an argument."
    )
