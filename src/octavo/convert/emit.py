"""Conversion: two environments, float and integer, with one emission per value.

Every value of the float graph has one name. In the quantized graph it may exist as float (as
computed), as integers, and as float on the integers' grid; each is emitted at most once, when
somebody first reads it that way.
"""

from __future__ import annotations

import operator
from typing import TYPE_CHECKING, Any

import torch
from torch import fx, nn
from torch.fx.node import Argument

from ..errors import ConversionError
from ..graph import ops
from ..graph.names import own_path, plain_path
from ..graph.qparams import QParams, weight_qparams
from ..graph.tensors import attribute, set_buffer

if TYPE_CHECKING:
    from ..quantizer import Quantizer
    from ..sites.rules import Rule

aten = torch.ops.aten


class Conversion:
    """One run of `Quantizer.quantize`: emits the quantized graph and collects its tensors."""

    def __init__(self, quantizer: Quantizer) -> None:
        self.quantizer = quantizer
        self.graph = fx.Graph()
        # A traced graph keeps its modules; an exported one only the tensors that are still read.
        self.exported = quantizer.exported
        self.root = nn.Module() if self.exported else quantizer.module
        self.env: dict[str, fx.Node] = {}
        self.quant_env: dict[str, fx.Node] = {}
        self.grid_env: dict[str, fx.Node] = {}
        self.tensors: dict[str, fx.Node] = {}
        self.paths: set[str] = set()  # of `tensors` in the quantized graph
        self.copies: dict[fx.Node, fx.Node] = {}  # what a rule covers -> its copy
        self.computed: dict[str, fx.Node] = {}  # each site's value, before it is quantized

    def run(self) -> fx.GraphModule:
        """Visit the float graph in order and emit each site, or a copy of each float node."""
        for node in self.quantizer.graph.nodes:
            root, handler = self.quantizer.matches.get(node.name, (None, None))
            if node is root:
                self.site(root, handler)
            elif root is None and not (node.op == "get_attr" and self.exported):
                self.copy(node)
        self.graph.lint()
        result = fx.GraphModule(self.root, self.graph)
        result.eval()
        return result

    def site(self, node: fx.Node, handler: Any) -> None:
        """Let the handler emit its site; copy what it covers as float if it declines."""
        emitted: Any = NotImplemented
        if node.target is operator.getitem and self.is_integers(node.args[0]):
            emitted = self.on_integers(node)  # a list of integer tensors has no float form
        elif self.quantizer.is_active(node):
            emitted = handler.quantize(self.quantizer, node, self.load_arg)
            if emitted is NotImplemented:
                reason = getattr(handler, "reason", "") or "its rule returned NotImplemented"
                self.quantizer.float_reasons[node.name] = reason
        if emitted is NotImplemented:
            for covered in self.quantizer.covered[node.name]:
                self.copy(covered)
        elif self.quantizer.is_rule(node) and "qparams" not in emitted.meta:
            self.env[node.name] = emitted
        else:
            self.quant_env[node.name] = emitted

    def copy(self, node: fx.Node) -> fx.Node:
        """Copy a node as it is, reading float."""
        if node.op == "get_attr" and self.exported:
            value = attribute(self.quantizer.module, node.target)
            if isinstance(value, nn.Module):  # a region of the graph that is run as it is
                self.root.add_module(str(node.target), value)
                self.env[node.name] = self.graph.node_copy(node)
            else:
                self.env[node.name] = self.tensor(str(node.target), value)
        else:
            self.env[node.name] = self.graph.node_copy(node, self.load_float)
        return self.env[node.name]

    def is_integers(self, node: Argument) -> bool:
        """Whether a value exists as integers alone."""
        return isinstance(node, fx.Node) and node.name in self.quant_env.keys() - self.env.keys()

    def load_arg(self, arg: Argument) -> Argument:
        """Arguments of the float graph as integers of the quantized graph."""
        return fx.map_arg(arg, self.load_quantized)

    def load_float(self, node: fx.Node) -> fx.Node:
        """A value as float: as computed, or else dequantized."""
        if node.name in self.env:
            return self.env[node.name]
        return self.load_grid(node) if node.name in self.quant_env else self.copy(node)

    def load_quantized(self, node: fx.Node) -> fx.Node:
        """A value as integers, quantized at its first reader if its producer did not."""
        if node.name not in self.quant_env:
            self.quant_env[node.name] = self.quantize(node, self.load_float(node))
        return self.quant_env[node.name]

    def load_grid(self, node: fx.Node) -> fx.Node:
        """A value as float that went through integers."""
        if node.name not in self.grid_env:
            q = self.load_quantized(node)
            if "qparams" in q.meta:
                dequantized = self.graph.call_function(ops.dequantize, (q, *q.meta["qparams"]))
            else:  # made by a handler of another kind, of PyTorch's own quantized dtypes
                dequantized = self.graph.call_method("dequantize", (q,))
            dequantized.meta = {k: v for k, v in node.meta.items() if k != "qparams"}
            self.grid_env[node.name] = dequantized
        return self.grid_env[node.name]

    def load_unrounded(self, node: fx.Node) -> fx.Node:
        """A value as computed, with the integers it would become told to the engine."""
        q = self.load_quantized(node)
        if not q.users:
            del self.quant_env[node.name]
        self.env[node.name] = self.told(node, q, ops.fuse_in_accumulator)
        return self.env[node.name]

    def told(self, node: fx.Node, q: fx.Node, identity: Any) -> fx.Node:
        """What `node` was computed as, with `q`, its integers, told to an engine by an identity."""
        told = self.graph.call_function(identity, (self.computed[node.name], *q.args[1:5]))
        if not q.users:
            self.graph.erase_node(q)
        told.meta = dict(node.meta)
        return told

    def quantize(self, node: fx.Node, value: fx.Node) -> fx.Node:
        """Emit the quantization of `value`, what `node` has become."""
        self.computed[node.name] = value
        q = self.quantizer.quant_of(node).quantize(value)
        for k, v in node.meta.items():
            q.meta.setdefault(k, v)
        return q

    def emit_qparams(self, value: fx.Node, name: str, qparams: QParams) -> fx.Node:
        """Quantize `value` with qparams stored under `name`, shared by all that use the name."""
        scale = self.tensor(own_path("ranges", name, "scale"), qparams.scale)
        zero_point = self.tensor(own_path("ranges", name, "zero_point"), qparams.zero_point)
        spec = qparams.spec
        args = (value, scale, zero_point, spec.qmin, spec.qmax, spec.dtype)
        node = self.graph.call_function(ops.quantize, args)
        node.meta["qparams"] = (scale, zero_point)
        return node

    def rule(self, rule: Rule) -> fx.Node:
        """Copy the nodes a rule covers, with integers on the inputs it wants and int8 weights."""
        reads = self.quantizer.reads.get(rule.root.name, ())
        inputs = {n: self.load_grid(n) for n in reads if n is not rule.unrounded}
        if rule.unrounded is not None and rule.unrounded in reads:
            inputs[rule.unrounded] = self.load_unrounded(rule.unrounded)
        weights = rule.weights() if self.quantizer.reads_integers(rule) else {}
        local: dict[fx.Node, fx.Node] = {}

        def load(n: fx.Node) -> fx.Node:
            if n in local:
                return local[n]
            if n in weights and n not in inputs:
                return self.weight(n, weights[n])
            return inputs[n] if n in inputs else self.load_float(n)

        for covered in rule.nodes:
            local[covered] = self.graph.node_copy(covered, load)
            if covered is rule.root and self.saturates(covered):
                local[covered].target = aten.relu.default
                local[covered].args = local[covered].args[:1]
        self.copies |= local
        return local[rule.root]

    def saturates(self, node: fx.Node) -> bool:
        """Whether a clip per channel may be a relu, since its integers end below all its bounds."""
        if node.target is not aten.clamp.Tensor or node.name not in self.quantizer.wanted:
            return False
        roots = (self.quantizer.matches.get(u.name, (u, None))[0] for u in node.users)
        if not all(node in self.quantizer.reads.get(r.name, ()) for r in roots):
            return False  # somebody reads it as float
        bounds = [a for a in node.args[1:] if isinstance(a, fx.Node) and a.op == "get_attr"]
        if len(bounds) != 2:
            return False
        low, high = (attribute(self.quantizer.module, b.target) for b in bounds)
        qparams = self.quantizer.quant_of(node).qparams()
        return bool((low == 0).all() and (high * (1 + 1e-5) >= qparams.range[1]).all())

    def on_integers(self, node: fx.Node) -> fx.Node:
        """Copy a node onto the integers of its input, whose qparams it keeps."""
        reads = self.quantizer.reads.get(node.name, node.all_input_nodes[:1])
        inputs = {n: self.load_quantized(n) for n in reads}
        copy = self.graph.node_copy(
            node, lambda n: inputs[n] if n in inputs else self.load_float(n)
        )
        copy.meta = dict(node.meta) | {"qparams": next(iter(inputs.values())).meta["qparams"]}
        return copy

    def weight(self, node: fx.Node, axis: int) -> fx.Node:
        """An int8 weight, dequantized; sites that share the weight share the integers."""
        path = str(node.target)
        key = path if axis == 0 else f"{path}_axis{axis}"
        if f"{key}_scale" not in self.tensors:
            known = self.quantizer.weights
            if key not in known:
                known[key] = self.quantized_weight(path, axis)
            # the float tensor may be there as well: an embedding shares the weight of a head
            q, scale = (t.clone() for t in known[key])  # a graph's tensors are its own
            args = (self.tensor(f"{key}_int8", q), self.tensor(f"{key}_scale", scale), None, axis)
            with self.graph.inserting_after(self.tensors[f"{key}_scale"]):
                self.grid_env[key] = self.graph.call_function(ops.dequantize, args)
        return self.grid_env[key]

    def quantized_weight(self, path: str, axis: int) -> tuple[torch.Tensor, torch.Tensor]:
        """A weight's integers and their scales."""
        value = attribute(self.quantizer.module, path).detach()
        if not torch.isfinite(value).all():
            raise ConversionError(f"weight {path!r} holds NaN or infinity: it cannot be quantized")
        p = weight_qparams(value, axis, self.quantizer.weight_spec)
        integers = (p.spec.qmin, p.spec.qmax, p.spec.dtype)
        return ops.quantize(value.float(), p.scale, p.zero_point, *integers, axis), p.scale

    def tensor(self, path: str, value: torch.Tensor) -> fx.Node:
        """The get_attr node for a tensor, registered once under its path."""
        if path not in self.tensors:
            plain = plain_path(path, self.paths)
            self.paths.add(plain)
            set_buffer(self.root, plain, value)
            self.tensors[path] = self.graph.get_attr(plain)
        return self.tensors[path]
