"""Ranges: what calibration observed of each value. The only state that changes meanwhile."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, fx

from ..errors import DataError, OctavoError
from ..graph.interpreter import Interpreter
from ..graph.names import describe
from ..graph.operators import is_branch, multiply_adds, operator_of
from ..graph.qparams import QSpec
from ..graph.tensors import attribute
from ..sites.rules.base import Rule
from ..sites.sites import Sites
from .observers import Observer, make_observer, merged, read_as

Watch = Callable[[fx.Node, Mapping[str, Any]], None]
Look = Callable[[fx.Node, Any], None]


class Ranges:
    """Runs calls through the float graph and keeps an observer for each value to be quantized.

    There is one observer per value, not per group of values that share a scale, because the groups
    change when sites fall back to float.

    sites: whose values are observed.
    watches: node -> a callback that gets the node and all live values by name, instead of Octavo's
        own observers.
    observer: the kind of all observers, instead of what the sites say.
    macs: node -> multiply-adds per sample, of the nodes that have any.
    """

    def __init__(
        self,
        sites: Sites,
        watches: Mapping[fx.Node, Watch] | None = None,
        observer: str | None = None,
    ) -> None:
        self.sites = sites
        observed = sites.observed if watches is None else ()
        self.observers = {n: make_observer(observer or sites.observer_of(n)) for n in observed}
        self.watches: dict[fx.Node, list[Watch]] = {n: [w] for n, w in (watches or {}).items()}
        for root, rule in sites.rules.items():
            if type(rule).observe is not Rule.observe:
                self.watches.setdefault(root, []).insert(0, rule.observe)
        self.macs: dict[fx.Node, int] = {}
        # answers of before the next call is observed, asked again at each conversion
        self._groups: dict[tuple[fx.Node, ...], Observer] = {}
        self._found: dict[tuple[tuple[fx.Node, ...], QSpec], tuple[float, float]] = {}

    # ---- observe

    @torch.no_grad()
    def observe(self, inputs: Sequence[Any], see: Look | None = None) -> Any:
        """Run the flat inputs of one call and observe all values; returns the flat outputs.

        Values are freed at their last use, so memory is that of one forward pass.
        see: gets each observed node and its value.
        """
        self._forget()
        samples = samples_of(inputs)

        def record(node: fx.Node, value: Any, env: Mapping[fx.Node, Any]) -> Any:
            if node in self.observers:
                observe_value(self.observers[node], node, value, samples)
                if see is not None and isinstance(value, Tensor):
                    see(node, value)
            if node not in self.macs and (operator_of(node).macs or is_branch(node)):
                self.macs[node] = self._macs(node, value, env) // samples
            for watch in self.watches.get(node, ()):
                watch(node, _by_name(env, node, value))
            return value

        interpreter = Interpreter(self.sites.graph.module, record)
        try:
            return interpreter.run(*inputs)
        except OctavoError:
            raise
        except Exception as e:
            raise DataError(_explain(interpreter, e)) from e

    def add(self, found: Mapping[fx.Node, tuple[float, float, Tensor | None]]) -> None:
        """Observe least, largest and samples of each value, as a compiled graph has found them."""
        self._forget()
        for node, (low, high, samples) in found.items():
            value = torch.tensor([low, high]) if samples is None else samples
            with named(node):
                self.observers[node].add(value, low, high)

    def _macs(self, node: fx.Node, value: Any, env: Mapping[fx.Node, Any]) -> int:
        """Multiply-adds of one run of a node: of the longer branch, where it is a `torch.cond`."""
        if not is_branch(node):
            return multiply_adds(node, value, [env[n] for n in node.all_input_nodes])
        branches: Any
        _, *branches, operands = node.args
        inputs: Any = fx.map_arg(operands, env.__getitem__)
        totals = []
        for branch in branches:
            macs: Counter[fx.Node] = Counter()

            def see(n: fx.Node, v: Any, inner: Mapping[fx.Node, Any], macs: Any = macs) -> Any:
                macs[n] += multiply_adds(n, v, [inner[i] for i in n.all_input_nodes])
                return v

            module = attribute(self.sites.graph.module, branch.target)
            Interpreter(module, see).run(*inputs)
            totals.append(macs.total())
        return max(totals)

    def _forget(self) -> None:
        self._groups.clear()
        self._found.clear()

    # ---- merging with other processes

    def state(self) -> dict[str, Observer]:
        """The observer of each value, by name, to be sent to other processes."""
        return {node.name: observer for node, observer in self.observers.items()}

    def merge(self, state: Mapping[str, Observer]) -> None:
        """Merge the `state` of another process for the same graph."""
        self._forget()
        for node, observer in self.observers.items():
            observer.merge(state[node.name])

    def by(self, observer: str) -> Ranges:
        """The same observations, read by observers of another kind, where no entry names one."""
        other, usual = Ranges(self.sites, watches={}), self.sites.config.observer
        other.observers = {
            n: read_as(observer, o) if self.sites.observer_of(n) == usual else o
            for n, o in self.observers.items()
        }
        other.macs = self.macs
        return other

    # ---- questions

    def clipped(self, nodes: Sequence[fx.Node], spec: QSpec) -> tuple[float, float]:
        """The range to spread over the integers of `spec` for values that share a scale."""
        key = (tuple(nodes), spec)
        if key not in self._found:
            self._found[key] = self._merged(nodes).clipped(spec)
        return self._found[key]

    def extremes(self, nodes: Sequence[fx.Node]) -> tuple[float, float]:
        """Smallest and largest number that any of these values took."""
        return self._merged(nodes).extremes()

    def _merged(self, nodes: Sequence[fx.Node]) -> Observer:
        key = tuple(nodes)
        if key not in self._groups:
            sources = [n for node in nodes for n in self._sources(node)]
            self._groups[key] = merged([self.observers[n] for n in sources])
        return self._groups[key]

    def _sources(self, node: fx.Node) -> Iterator[fx.Node]:
        """The observed values that hold what `node` holds: itself, or what it was moved from."""
        if node in self.observers:
            yield node
            return
        rule = self.sites.rules.get(node)
        if rule is None or not rule.shares_qparams:
            raise DataError(f"nothing was observed of {describe(node)}: it has no range")
        for source in rule.activations():
            yield from self._sources(source)


def multiply_adds_of(sites: Sites, inputs: Sequence[Any]) -> dict[fx.Node, int]:
    """Multiply-adds per sample of each node of the float graph, by running it on a call."""
    ranges = Ranges(sites, watches={})
    ranges.observe(inputs)
    return ranges.macs


def samples_of(inputs: Sequence[Any]) -> int:
    """How many samples the flat inputs of a call are: the size of the first one."""
    first = inputs[0] if inputs else None
    return max(first.shape[0], 1) if isinstance(first, Tensor) and first.dim() else 1


def observe_value(observer: Observer, node: fx.Node, value: Any, samples: int = 1) -> None:
    """Record the value of `node` if it is a tensor; DataError, naming it, if it is not finite."""
    if isinstance(value, Tensor):
        with named(node):
            observer.observe(value, samples)


@contextlib.contextmanager
def named(node: fx.Node) -> Iterator[None]:
    """An error about a value names the node that it is of."""
    try:
        yield
    except DataError as e:
        raise DataError(
            f"the output of {describe(node)} has {e}: check the calibration data and weights"
        ) from e


def _by_name(env: Mapping[fx.Node, Any], node: fx.Node, value: Any) -> dict[str, Any]:
    return {n.name: v for n, v in env.items()} | {node.name: value}


def _explain(interpreter: Interpreter, error: Exception) -> str:
    node = interpreter.at
    if node is None:
        return f"calibration stopped: {error}"
    values = (interpreter.env.get(i) for i in node.all_input_nodes)
    shapes = [tuple(v.shape) for v in values if isinstance(v, Tensor)]
    return (
        f"calibration stopped at {describe(node)} with inputs of shape {shapes}: {error}\n"
        "Calibration data must have the shapes and types that the model takes."
    )
