"""Handlers of torch.fx's original experimental quantizer, adapted to rules and emission.

A handler is a class with `__init__(quantizer, node)`, `observe(node, env)` and
`quantize(quantizer, node, load_arg)`; what `quant_ctor` makes has `observe(node, env)` and
`quantize(input)`. They may create nodes of PyTorch's own quantized dtypes, which are dequantized by
the method of that name. Rules and stages know nothing of this form; this module adapts it.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from torch import fx, nn

from .calibrate.observers import make_observer
from .calibrate.ranges import Ranges, Watch, observe_value
from .convert import Emission, QuantizedWeights, convert
from .convert.choose import qparams_of_group
from .convert.emit import GraphEmitter
from .errors import DataError
from .graph.qparams import QParams
from .sites.patterns import Handler, Pattern
from .sites.rules.base import Context, Emitter, Rule, is_rule
from .sites.sites import Sites


def traced(model: nn.Module) -> fx.GraphModule:
    """The model's graph of modules and functions; a copy, since handlers may replace modules."""
    graph = model if isinstance(model, fx.GraphModule) else fx.symbolic_trace(model)
    return copy.deepcopy(graph)


class DefaultQuant:
    """Observes one value and quantizes it: a base class for what `quant_ctor` returns.

    Override `qparams` to choose scale and zero_point differently.
    """

    def __init__(self, quantizer: Any, node: fx.Node) -> None:
        self.quantizer, self.node = quantizer, node
        self.observer = make_observer(quantizer.config.observer)

    def observe(self, node: fx.Node, env: Mapping[str, Any]) -> None:
        """Record the value of `node`; raises DataError if it holds NaN or infinity."""
        observe_value(self.observer, node, env[node.name])

    def merge(self, other: DefaultQuant) -> None:
        """Add the observations of another value that will share scale and zero_point."""
        self.observer.merge(other.observer)

    def qparams(self) -> QParams:
        """scale and zero_point from what was observed; a zero_point near the middle becomes 0."""
        sites = self.quantizer.sites
        assert sites is not None
        extremes, clipped = self.observer.extremes(), self.observer.clipped
        return qparams_of_group(sites, self.node, extremes, clipped)

    def quantize(self, input: fx.Node) -> fx.Node:
        """Emit the quantization of `input`."""
        return self.quantizer.adapter.emit_quantize(self.node, input)


class HandlerRule(Rule):
    """A rule that wraps a handler: it reads all inputs as integers, and its output is integers."""

    def __init__(self, handler_type: Handler, quantizer: Any, nodes: Sequence[fx.Node]) -> None:
        super().__init__(nodes)
        self.quantizer = quantizer
        self.handler = handler_type(quantizer, nodes[-1])

    def quantized_inputs(self, context: Context, output_demanded: bool) -> list[fx.Node]:
        """All inputs from outside the site."""
        return [i for n in self.nodes for i in n.all_input_nodes if i not in self.nodes]

    def observe(self, node: fx.Node, env: Mapping[str, Any]) -> None:
        """Call the handler's `observe`."""
        self.handler.observe(node, env)

    def emit(self, emitter: Emitter) -> Any:
        """What the handler emits, or NotImplemented."""
        emitted = self.handler.quantize(self.quantizer, self.root, emitter.load_arg)
        if emitted is NotImplemented:
            self.reason = getattr(self.handler, "reason", "")
        else:
            self.quantizer.adapter.emitting.foreign.add(emitted)
        return emitted


class Adapter:
    """Runs the stages of a `Quantizer` with handlers and quants in the original's form.

    quantizer: the `Quantizer` that it serves, typed loosely since that module imports this one.
    """

    def __init__(self, quantizer: Any) -> None:
        self.quantizer = quantizer
        types = list(quantizer.patterns.values())
        rules = [is_rule(t) for t in types]
        self.is_traced = not any(rules)
        self.is_needed = not all(rules) or quantizer.quant_ctor is not None
        self.modules: dict[str, nn.Module] = {}
        self.quants: dict[fx.Node, Any] = {}
        self._emitting: HandlerEmitter | None = None

    def patterns(self, module: fx.GraphModule) -> dict[Pattern, Handler]:
        """The pattern table, with each handler wrapped in a rule."""
        self.modules = dict(module.named_modules())
        return {
            pattern: handler if is_rule(handler) else partial(HandlerRule, handler, self.quantizer)
            for pattern, handler in self.quantizer.patterns.items()
        }

    def watches(self, sites: Sites) -> Mapping[fx.Node, Watch] | None:
        """The `observe` of each value read as integers; None for Octavo's own observers."""
        make = self.quantizer.quant_ctor or (DefaultQuant if self.is_traced else None)
        if make is None:
            return None
        self.quants = {node: make(self.quantizer, node) for node in sites.observed}
        return {node: quant.observe for node, quant in self.quants.items()}

    # ---- convert

    def convert(self, sites: Sites, ranges: Ranges, weights: QuantizedWeights) -> Emission:
        """The quantized graph."""
        if self.quants:
            return convert(sites, ranges, weights, self._choose, self._emit)
        return convert(sites, ranges, weights, emit=self._emit)

    def _choose(self, sites: Sites, ranges: Ranges) -> dict[fx.Node, QParams]:
        chosen = {}
        for node in sites.observed:
            quant = self._quant_of(sites, node)
            if hasattr(quant, "qparams"):
                chosen[node] = quant.qparams()
        for node in sites.demand.specs:
            group = sites.demand.group_of(node)
            if group in chosen:
                chosen[node] = chosen[group]
        return chosen

    def _emit(
        self, sites: Sites, qparams: Mapping[fx.Node, QParams], weights: QuantizedWeights
    ) -> Emission:
        self._emitting = HandlerEmitter(sites, qparams, weights, self)
        return self._emitting.run()

    def _quant_of(self, sites: Sites, node: fx.Node) -> Any:
        """The object that quantizes a value, merged over all values that share its scale."""
        group = sites.demand.group_of(node)
        first, *rest = (self.quants[n] for n in sites.groups[group])
        if rest:
            first = copy.copy(first)
            first.observer = copy.deepcopy(first.observer)
            for other in rest:
                first.merge(other)
            first.node = group
        return first

    # ---- for handlers and quants while they emit

    @property
    def emitting(self) -> HandlerEmitter:
        """The emission under way, or the last one."""
        if self._emitting is None:
            raise DataError("nothing is emitted yet: this is for handlers, during quantize()")
        return self._emitting

    @property
    def quantized_graph(self) -> fx.Graph:
        """The graph being emitted."""
        return self.emitting.graph

    def emit_quantize(self, node: fx.Node, value: fx.Node) -> fx.Node:
        """Octavo's own quantize of a value."""
        return GraphEmitter.quantize(self.emitting, node, value)


class HandlerEmitter(GraphEmitter):
    """Emission in which quants quantize, and modules of a traced graph stay modules.

    foreign: nodes of PyTorch's own quantized dtypes.
    """

    def __init__(
        self,
        sites: Sites,
        qparams: Mapping[fx.Node, QParams],
        weights: QuantizedWeights,
        adapter: Adapter,
    ) -> None:
        super().__init__(sites, qparams, weights)
        self.adapter = adapter
        self.foreign: set[fx.Node] = set()
        if adapter.is_traced:
            self.root = self.source

    def is_read_later(self, node: fx.Node) -> bool:
        """In a traced graph tensors are copied in graph order, not on first use."""
        return not self.adapter.is_traced and super().is_read_later(node)

    def copy(self, node: fx.Node) -> fx.Node:
        """In a traced graph tensors stay as they are."""
        if not self.adapter.is_traced:
            return super().copy(node)
        self.floats[node] = self.graph.node_copy(node, self.load_float)
        return self.floats[node]

    def is_integers(self, node: fx.Node) -> bool:
        """Also true for PyTorch's own quantized dtypes."""
        return node in self.foreign or super().is_integers(node)

    def quantize(self, node: fx.Node, value: fx.Node) -> fx.Node:
        """Call the `quantize` of the value's quant."""
        if not self.adapter.quants:
            return super().quantize(node, value)
        q = self.adapter._quant_of(self.sites, node).quantize(value)
        if q not in self.integers:
            self.foreign.add(q)
        return q

    def dequantize(self, q: fx.Node) -> fx.Node:
        """With PyTorch's method, for PyTorch's own quantized dtypes."""
        if q in self.foreign:
            return self.graph.call_method("dequantize", (q,))
        return super().dequantize(q)
