"""A captured graph beside the model it was captured from, at whatever sizes."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import torch
import torch.utils._pytree as pytree
from torch import Tensor, fx, nn

from ..errors import one_line
from ..graph.compare import EXACT, difference
from ..graph.interpreter import Interpreter
from ..graph.operators import Kind, operator_of
from .branches import broken, conditions
from .examples import Shapes, at_the_end, resized
from .inplace import draws_random
from .signature import Signature
from .unchanged import unchanged


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
        free = ((n, d) for v, s in zip(values, self.sizes, strict=True)
                for d, n in zip(v.shape, s, strict=True) if n is not None)  # fmt: skip
        self.traced = {symbol: size.node.hint for symbol, size in free}  # sizes while tracing
        self.exact = not draws_random(module.graph)
        self.agreed: list[Shapes] = []
        self.open = conditions(module.graph)  # nothing is known of these
        self.needed: list[Any] = []  # where these are broken, the graph is not the model
        self.unexplained: list[list[Any]] = []  # one of each of these is needed
        self.equal: list[str] = []  # conditions that sizes that are changed together are the same

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

    def tie(self, symbol: Any, others: Sequence[Any]) -> None:
        """From now on, change these sizes together."""
        for other in others:
            first, second = self.places(other)[0], self.places(symbol)[0]
            self.equal.append("input{}[{}] == input{}[{}]".format(*first, *second))
        same = dict.fromkeys(others, symbol)
        self.sizes = [[n if n is None else n.xreplace(same) for n in s] for s in self.sizes]
        self.open, self.needed, *self.unexplained = (
            [c for c in (c.xreplace(same) for c in conditions) if c.free_symbols]
            for conditions in (self.open, self.needed, *self.unexplained)
        )

    def at(self, tensors: Sequence[Tensor], sizes: Mapping[Any, int]) -> list[Tensor]:
        """The tensors with other sizes (by symbol); sizes computed from them follow."""
        have = self.sizes_of(tensors) | sizes
        shapes = [
            [int(n.xreplace(have)) if n is not None else t.shape[d] for d, n in enumerate(s)]
            for t, s in zip(tensors, self.sizes, strict=True)
        ]
        return [resized(t, shape) for t, shape in zip(tensors, shapes, strict=True)]

    def sizes_of(self, tensors: Sequence[Tensor]) -> dict[Any, int]:
        """Their dynamic sizes, by symbol."""
        return {n: t.shape[d] for t, s in zip(tensors, self.sizes, strict=True)
                for d, n in enumerate(s) if n is not None}  # fmt: skip

    def allows(self, tensors: Sequence[Tensor], also_open: bool = False) -> bool:
        """Whether no condition is broken that is needed, or of which nothing is known."""
        sizes = self.sizes_of(tensors)
        return not any(broken(c, sizes) for c in self.needed + self.open * also_open)

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
        """How the graph's outputs differ from those expected; an empty string if they agree.

        Also if they differ where the call breaks a condition on sizes: that is then needed. If they
        agree, it is not.
        """
        sizes = self.sizes_of(tensors)
        met = [c for c in self.open if broken(c, sizes)]
        found = self._difference(tensors, expected) or self._differs_at_the_end(tensors)
        if found and len(met) > 1:
            self.unexplained.append(met)
            return ""
        self.open = [c for c in self.open if c not in met]
        self.needed += met if found else []
        return found if self.allows(tensors) else ""

    def _differs_at_the_end(self, tensors: Sequence[Tensor]) -> str:
        """How the graph differs from a model of which it has a part at sizes above the traced ones.

        A pool whose kernel is fixed at the traced size leaves out the last items, and most often
        the largest is not among them: they are made the largest.
        """
        for symbol, size in self.sizes_of(tensors).items():
            if size <= self.traced[symbol]:
                continue
            inputs = list(tensors)
            for i, d in self.places(symbol):
                inputs[i] = at_the_end(inputs[i], d)
            try:
                expected = self.expected(inputs)
            except Exception:  # the model does not take such values: nothing to compare
                continue
            if found := self._difference(inputs, expected):
                return found
        return ""

    def _difference(self, tensors: Sequence[Tensor], expected: Run) -> str:
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
            self.agreed.append(shapes_of(tensors))
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


def shapes_of(tensors: Sequence[Tensor]) -> Shapes:
    """The shapes of a call's tensors."""
    return tuple(tuple(t.shape) for t in tensors)
