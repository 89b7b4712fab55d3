"""Emit: write the quantized graph of matched sites. Pure.

In the quantized graph a value may exist as float (as computed), as integers, and dequantized; each
form is emitted at most once, when an operator first reads it.
"""

from __future__ import annotations

import operator
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx, nn
from torch.fx.node import Argument

from ..errors import ConversionError
from ..graph import ops
from ..graph.names import describe, own_path, plain_path
from ..graph.qparams import QParams
from ..graph.recurrent import is_made, rounded_lstm
from ..graph.tensors import attribute, constant, is_constant, set_buffer
from ..graph.verify import checkpoint
from ..sites.rules.base import Rule
from ..sites.sites import Site, Sites
from .weights import QuantizedWeights

aten = torch.ops.aten


@dataclass(frozen=True)
class Emission:
    """A quantized graph and how it came from the float graph.

    sites, qparams, weights: what it was emitted from.
    copies: each node that a site covers -> its copy in the quantized graph.
    values: root of each site -> its value there, before it is quantized for its consumers.
    quantized: each value that is read as integers -> its integers there.
    integers: each integer node there -> the nodes of its scale and zero_point.
    declined: sites whose rule returned NotImplemented -> the reason.
    """

    sites: Sites
    qparams: Mapping[fx.Node, QParams]
    weights: QuantizedWeights
    module: fx.GraphModule
    copies: Mapping[fx.Node, fx.Node]
    values: Mapping[fx.Node, fx.Node]
    quantized: Mapping[fx.Node, fx.Node]
    integers: Mapping[fx.Node, tuple[fx.Node, fx.Node]]
    declined: Mapping[fx.Node, str]

    def again(self) -> Emission:
        """A fresh copy of the graph, for a stage that changes it."""
        return emit(self.sites, self.qparams, self.weights)


def emit(sites: Sites, qparams: Mapping[fx.Node, QParams], weights: QuantizedWeights) -> Emission:
    """The quantized graph of these sites, with these scales and zero_points."""
    return GraphEmitter(sites, qparams, weights).run()


class GraphEmitter:
    """One run of `emit`: what each value of the float graph has become so far.

    floats, quantized, dequantized: the forms of each value that exist.
    computed: the value of each site before it is quantized.
    """

    def __init__(
        self, sites: Sites, qparams: Mapping[fx.Node, QParams], weights: QuantizedWeights
    ) -> None:
        self.sites, self.qparams, self.weights = sites, qparams, weights
        self.source = sites.graph.module
        self.graph = fx.Graph()
        self.root: nn.Module = nn.Module()
        self.floats: dict[fx.Node, fx.Node] = {}
        self.quantized: dict[fx.Node, fx.Node] = {}
        self.dequantized: dict[Any, fx.Node] = {}  # by value, or by path and axis of a weight
        self.computed: dict[fx.Node, fx.Node] = {}
        self.copies: dict[fx.Node, fx.Node] = {}
        self.integers: dict[fx.Node, tuple[fx.Node, fx.Node]] = {}
        self.tensors: dict[str, fx.Node] = {}
        self.paths: set[str] = set()  # of `tensors` in the quantized graph
        self.declined: dict[fx.Node, str] = {}

    def run(self) -> Emission:
        """Visit the float graph in order and emit each site, or a copy of each float node."""
        for node in self.source.graph.nodes:
            if node in self.sites:
                self.site(self.sites[node])
            elif node not in self.sites.roots and not self.is_read_later(node):
                self.copy(node)
        self.graph.lint()
        module = fx.GraphModule(self.root, self.graph)
        module.eval()
        checkpoint(module, "emit")
        known = {**self.quantized, **self.floats, **self.computed}
        return Emission(
            self.sites,
            self.qparams,
            self.weights,
            module,
            self.copies,
            {root: known[root] for root in self.sites if root in known},
            self.quantized,
            self.integers,
            self.declined,
        )

    def is_read_later(self, node: fx.Node) -> bool:
        """Whether a node is copied only when something reads it: tensors that stay float."""
        return node.op == "get_attr"

    # ---- sites

    def site(self, site: Site) -> None:
        """Let the rule emit its site; copy the covered nodes as float if it declines."""
        root, rule = site.root, site.rule
        emitted: Any = NotImplemented
        if root.target is operator.getitem and self.is_integers_only(root.args[0]):
            emitted = self.emit_on_integers(rule)  # a list of integer tensors has no float form
        elif not site.fallback_reason:
            emitted = rule.emit(self)
            if emitted is NotImplemented:
                reason = rule.reason or rule.float_reason
                self.declined[root] = reason or "its rule returned NotImplemented"
        if emitted is NotImplemented:
            for covered in rule.nodes:
                self.copy(covered)
        elif self.is_integers(emitted):
            self.quantized[root] = emitted
        elif root in self.sites.demand.hints:
            q = self.emit_quantize(root, emitted)
            self.floats[root] = self.hint(root, q, ops.requantize_hint)
        else:
            self.floats[root] = emitted

    def emit(self, rule: Rule) -> fx.Node:
        """Copy a rule's nodes, on dequantized inputs and weights where it reads integers."""
        site = self.sites[rule.root]
        inputs = self.rounded_inputs(site)
        weights = site.int8_weights
        hints = self.sites.demand.hints
        local: dict[fx.Node, fx.Node] = {}

        def load(n: fx.Node) -> fx.Node:
            if n in local:
                return local[n]
            if n in weights and n not in inputs:
                return self.weight(n, weights[n], bool(site.settings.per_channel))
            return inputs[n] if n in inputs else self.load_float(n)

        for covered in rule.nodes:
            value = self.copies[covered] = self.graph.node_copy(covered, load)
            if covered is rule.root and self.is_clipped_by_integers(covered):
                value.target, value.args = aten.relu.default, value.args[:1]
            elif covered is not rule.root and covered in hints:  # before its activation
                q = self.emit_quantize(covered, value)
                value = self.hint(covered, q, ops.requantize_hint)
            local[covered] = value
        return local[rule.root]

    def emit_rows(self, rule: Rule) -> fx.Node:
        """Gather int8 rows of a table and dequantize them; as float if they are not stored so."""
        site, node = self.sites[rule.root], rule.operator
        if not site.int8_weights:
            return self.emit(rule)
        (table,), ids = site.int8_weights, fx.map_arg(node.args[1], self.load_float)
        q, scale = self.integers_of(table, 0, bool(site.settings.per_channel))
        create, width = self.graph.create_node, int(node.meta["val"].shape[-1])
        column = self.graph.call_function(aten.unsqueeze.default, (scale, 1))
        rows, scales = (  # named like the table, for messages about ids that are not in it
            create("call_function", aten.embedding.default, (t, ids), name=node.name)
            for t in (q, column)
        )
        value = self.graph.call_function(ops.dequantize_groups, (rows, scales, width))
        for n in (rows, scales, value):
            n.meta = dict(node.meta)
        self.copies[node] = value
        return value

    def emit_rounded_lstm(self, rule: Rule) -> fx.Node:
        """One layer of an LSTM on integers, its state rounded like its outputs."""
        node, (x, y) = rule.operator, self.sites[rule.root].int8_inputs
        given: Any = node.args
        h, c = map(self.load_float, given[1])
        if not is_made(h):  # 0 needs no rounding
            q = self.quantize(y, h)
            h = self.dequantize(q)
        ratio = float(self.qparams[y].scale / self.qparams[x].scale)
        pairs = zip(*[iter(rule.weights())] * 2, strict=True)
        int8 = {n: d for w, r in pairs for n, d in self.weights_beside(node, w, r, ratio)}
        weights = [int8[n] if n in int8 else self.load_float(n) for n in given[2]]
        flags = (given[3], *given[7:9])
        args = (self.load_dequantized(x), [h, c], weights, *flags, *self.integers_for(y)[:4])
        value = self.copies[node] = self.graph.call_function(rounded_lstm, args)
        value.meta = dict(node.meta)
        return value

    def weights_beside(
        self, layer: fx.Node, w: fx.Node, r: fx.Node, ratio: float
    ) -> Iterator[tuple[fx.Node, fx.Node]]:
        """Weights of inputs and state of an LSTM, each with its dequantized form for this layer."""
        both = self.weights.beside(str(w.target), str(r.target), ratio)
        for n, (integers, scale) in zip((w, r), both, strict=True):
            path = f"{n.target}_{layer.name}"
            q = self.tensor(f"{path}_int8", integers)
            s = self.tensor(f"{path}_scale", scale)
            yield n, self.graph.call_function(ops.dequantize, (q, s, None, 0))

    def rounded_inputs(self, site: Site) -> dict[fx.Node, fx.Node]:
        """The inputs that a site reads rounded, dequantized."""
        if site.activations == "dynamic":
            size = site.settings.group_size or 0
            return {n: self.load_dynamic(n, size) for n in site.rule.activations()}
        return {
            n: self.load_fused(n) if n is site.fused_input else self.load_dequantized(n)
            for n in sorted(site.int8_inputs, key=lambda n: n is site.fused_input)
        }

    def emit_on_integers(self, rule: Rule) -> fx.Node:
        """Copy a node onto the integers of its input, whose scale and zero_point it keeps."""
        node = rule.root
        reads = self.sites[node].int8_inputs or node.all_input_nodes[:1]
        inputs = {n: self.load_quantized(n) for n in reads}
        copy = self.graph.node_copy(
            node, lambda n: inputs[n] if n in inputs else self.load_float(n)
        )
        self.integers[copy] = self.integers[next(iter(inputs.values()))]
        return copy

    def is_demanded(self, node: fx.Node) -> bool:
        """Whether any site reads the value of `node` as integers."""
        return node in self.sites.demand.specs

    def reads_integers(self, rule: Rule) -> bool:
        """Whether the site of `rule` reads any input as integers."""
        return bool(self.sites[rule.root].int8_inputs)

    def is_clipped_by_integers(self, node: fx.Node) -> bool:
        """Whether a clip per channel may be a relu: its integer range ends below all bounds."""
        if node.target is not aten.clamp.Tensor or not self.is_demanded(node):
            return False
        inputs = self.sites.demand.inputs
        readers = (self.sites.roots.get(user, user) for user in node.users)
        if not all(node in inputs.get(reader, ()) for reader in readers):
            return False  # an operator reads it as float
        bounds = [a for a in node.args[1:] if is_constant(a)]
        if len(bounds) != 2:
            return False
        low, high = (constant(self.source, b) for b in bounds)
        most = self.qparams[node].range[1]
        return bool((low == 0).all() and (high * (1 + 1e-5) >= most).all())

    # ---- the forms of a value

    def copy(self, node: fx.Node) -> fx.Node:
        """Copy a node as it is, reading float."""
        if node.op == "get_attr":
            value = attribute(self.source, node.target)
            if isinstance(value, nn.Module):  # a subgraph that is run as it is
                self.root.add_module(str(node.target), value)
                self.floats[node] = self.graph.node_copy(node)
            else:
                self.floats[node] = self.tensor(str(node.target), value)
        else:
            self.floats[node] = self.graph.node_copy(node, self.load_float)
        return self.floats[node]

    def is_integers(self, node: fx.Node) -> bool:
        """Whether the value of a node of the quantized graph is integers."""
        return node in self.integers

    def is_integers_only(self, node: Argument) -> bool:
        """Whether a value exists as integers and not as float."""
        return node in self.quantized and node not in self.floats

    def load_arg(self, arg: Any) -> Any:
        """Arguments of the float graph as integers of the quantized graph."""
        return fx.map_arg(arg, self.load_quantized)

    def load_float(self, node: fx.Node) -> fx.Node:
        """A value as float: as computed, or else dequantized."""
        if node in self.floats:
            return self.floats[node]
        return self.load_dequantized(node) if node in self.quantized else self.copy(node)

    def load_quantized(self, node: fx.Node) -> fx.Node:
        """A value as integers, quantized at its first consumer if its producer did not do so."""
        if node not in self.quantized:
            self.quantized[node] = self.emit_quantize(node, self.load_float(node))
        return self.quantized[node]

    def load_dequantized(self, node: fx.Node) -> fx.Node:
        """A value fake-quantized: quantized and dequantized."""
        if node not in self.dequantized:
            dequantized = self.dequantize(self.load_quantized(node))
            dequantized.meta = dict(node.meta)
            self.dequantized[node] = dequantized
        return self.dequantized[node]

    def load_dynamic(self, node: fx.Node, group_size: int) -> fx.Node:
        """A value rounded with scales that each call finds; group_size 0: all channels."""
        size = group_size or int(node.meta["val"].shape[-1])
        if (node, size) not in self.dequantized:
            x, call = self.load_float(node), self.graph.call_function
            scale = call(ops.dynamic_scale, (x, size))
            integers = call(ops.quantize_groups, (x, scale, size))
            self.dequantized[node, size] = call(ops.dequantize_groups, (integers, scale, size))
            for n in (integers, self.dequantized[node, size]):
                n.meta = dict(node.meta)
        return self.dequantized[node, size]

    def load_fused(self, node: fx.Node) -> fx.Node:
        """A value as computed, with a hint that holds its qparams."""
        q = self.load_quantized(node)
        if not q.users:
            del self.quantized[node]
        self.floats[node] = self.hint(node, q, ops.fuse_in_accumulator)
        return self.floats[node]

    def hint(self, node: fx.Node, q: fx.Node, operator: Any) -> fx.Node:
        """The value of `node` before quantization, with a hint that holds the qparams of `q`."""
        hint = self.graph.call_function(operator, (self.computed[node], *q.args[1:5]))
        hint.meta = dict(node.meta)
        if not q.users:
            self.graph.erase_node(q)
            self.integers.pop(q, None)
        return hint

    def emit_quantize(self, node: fx.Node, value: fx.Node) -> fx.Node:
        """Quantize `value`, which `node` of the float graph has become."""
        self.computed[node] = value
        q = self.quantize(node, value)
        for k, v in node.meta.items():
            q.meta.setdefault(k, v)
        return q

    def quantize(self, node: fx.Node, value: fx.Node) -> fx.Node:
        """A quantize of `value`; its scale is stored once for all values that share it."""
        given = self.integers_for(node)
        q = self.graph.call_function(ops.quantize, (value, *given))
        self.integers[q] = given[:2]
        return q

    def integers_for(self, node: fx.Node) -> tuple[fx.Node, fx.Node, int, int, torch.dtype]:
        """What a quantize of a value needs: nodes of scale and zero_point, bounds, dtype."""
        p, name = self.qparams.get(node), self.sites.demand.group_of(node).name
        if p is None:
            raise ConversionError(f"no observer for {describe(node)}: nothing asked for its range")
        scale = self.tensor(own_path("ranges", name, "scale"), p.scale)
        zero_point = self.tensor(own_path("ranges", name, "zero_point"), p.zero_point)
        return scale, zero_point, p.spec.qmin, p.spec.qmax, p.spec.dtype

    def dequantize(self, q: fx.Node) -> fx.Node:
        """The dequantize of integers."""
        return self.graph.call_function(ops.dequantize, (q, *self.integers[q]))

    # ---- tensors

    def weight(self, node: fx.Node, axis: int, per_channel: bool) -> fx.Node:
        """An int8 weight, dequantized; sites that share the weight share the integers."""
        q, scale = self.integers_of(node, axis, per_channel)
        if q not in self.dequantized:
            with self.graph.inserting_after(scale):
                args = (q, scale, None, axis)
                self.dequantized[q] = self.graph.call_function(ops.dequantize, args)
        return self.dequantized[q]

    def integers_of(self, node: fx.Node, axis: int, per_channel: bool) -> tuple[fx.Node, fx.Node]:
        """The int8 form of a weight and its scales; the float form may exist as well."""
        path = str(node.target)
        key = path if axis == 0 else f"{path}_axis{axis}"
        key = key if per_channel else f"{key}_per_tensor"
        if f"{key}_int8" not in self.tensors:
            q, scale = self.weights(path, axis, per_channel)
            self.tensor(f"{key}_int8", q)
            self.tensor(f"{key}_scale", scale)
        return self.tensors[f"{key}_int8"], self.tensors[f"{key}_scale"]

    def tensor(self, path: str, value: torch.Tensor) -> fx.Node:
        """The get_attr node for a tensor, registered once under its path."""
        if path not in self.tensors:
            plain = plain_path(path, self.paths)
            self.paths.add(plain)
            set_buffer(self.root, plain, value)
            self.tensors[path] = self.graph.get_attr(plain)
        return self.tensors[path]
