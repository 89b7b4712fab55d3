"""Quantizer: the three steps match -> observe -> quantize, for those who want the steps."""

from __future__ import annotations

import copy
import dataclasses
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, fx, nn

from .calibrate.calibrator import Calibrator, Watch
from .capture.export import capture
from .capture.signature import Call, Signature
from .config import Config
from .convert.emit import Conversion
from .cpu import saturates_pairs
from .default_quant import DefaultQuant
from .errors import CaptureError, ConversionError, DataError
from .graph import ops
from .graph.names import describe
from .graph.qparams import ACTIVATION, REDUCED_WEIGHT, WEIGHT, QParams, QSpec
from .graph.tensors import attribute
from .graph.work import WORK, multiply_adds
from .passes import tidy
from .sites.patterns import DEFAULT_PATTERNS, Handler, Pattern, find_matches
from .sites.rules import Conv, PassThrough, Rule, Weighted
from .sites.selection import select

aten = torch.ops.aten


class Quantizer:
    """Match patterns in a model, observe real inputs, emit the quantized graph.

    >>> q = Quantizer(nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU()).eval())
    >>> for _ in range(4):
    ...     _ = q.observe(torch.rand(2, 3, 16, 16))
    >>> quantized = q.quantize()
    >>> quantized(torch.rand(5, 3, 16, 16))[0].shape
    torch.Size([5, 8, 14, 14])

    model: an nn.Module or a GraphModule; it is never changed. A table whose handlers are all of
        the original kind (not `Rule`s) works on `torch.fx.symbolic_trace`'s graph of modules and
        functions; any other on the graph of ATen operators that torch.export makes of the model
        at the first `observe`.
    patterns: pattern -> rule, or handler class with `__init__(quantizer, node)`,
        `observe(node, env)` and `quantize(quantizer, node, load_arg)`; default: all registered.
    quant_ctor: makes the object that observes and quantizes a value; `DefaultQuant`'s methods.
    """

    def __init__(
        self,
        model: nn.Module,
        patterns: Mapping[Pattern, Handler] | None = None,
        quant_ctor: Callable[[Quantizer, fx.Node], Any] = DefaultQuant,
        config: Config | None = None,
    ) -> None:
        self.model = model
        self.patterns = DEFAULT_PATTERNS if patterns is None else patterns
        self.quant_ctor = quant_ctor
        self.config = config or Config()
        reduce = self.config.reduce_range
        reduced = saturates_pairs() if reduce == "auto" else reduce
        self.weight_spec = REDUCED_WEIGHT if reduced else WEIGHT
        self.exported = any(
            isinstance(p, type) and issubclass(p, Rule) for p in self.patterns.values()
        )
        self.float_reasons: dict[str, str] = {}
        self.watches: dict[str, list[Watch]] = {}
        self.work: dict[str, int] = {}  # node -> multiply-adds per sample
        self.batch_size = 1
        if not self.exported:
            traced = model if isinstance(model, fx.GraphModule) else fx.symbolic_trace(model)
            self._bind(copy.deepcopy(traced), None)

    # ---- match

    def capture(self, call: Call, *others: Call) -> None:
        """Capture and tidy the model as called so, and match; `observe` does it when needed.

        Sizes in which `others` differ are left free.
        """
        module, signature = capture(self.model, *call, others)
        self._bind(tidy(module), signature)

    def twin(self, module: fx.GraphModule, **changes: Any) -> Quantizer:
        """A quantizer like this one for another form of its graph; nothing is observed yet.

        changes: settings of its `config` that are to be others.
        """
        twin = copy.copy(self)
        twin.config = dataclasses.replace(self.config, **changes)
        twin.float_reasons, twin.watches, twin.work = {}, {}, {}
        twin._bind(module, self.signature)
        return twin

    def _bind(self, module: fx.GraphModule, signature: Signature | None) -> None:
        """Take on the graph to quantize: find matches, wanted values and their observers."""
        self.module, self.graph, self.signature = module, module.graph, signature
        self.modules = dict(module.named_modules())
        self.weights: dict[str, tuple[Tensor, Tensor]] = {}  # integers, scales: for all emissions
        self.matches: dict[str, tuple[fx.Node, Any]] = {}
        self.covered: dict[str, list[fx.Node]] = {}
        for nodes, handler_type in find_matches(self.graph, self.modules, self.patterns):
            handler = handler_type(self, nodes[-1])
            if isinstance(handler, Rule):
                handler.nodes = nodes
            self.covered[nodes[-1].name] = nodes
            self.matches |= {n.name: (nodes[-1], handler) for n in nodes}
        for name in self.covered:
            rule = self.matches[name][1]
            if isinstance(rule, Rule) and (reason := _complex(rule) or rule.refuses(self)):
                self.float_reasons[name] = reason
        self._keep_float(self.config.keep_float)
        self._find_convolutional()
        self._find_wanted()
        self.quants = {
            n.name: self.quant_ctor(self, n)
            for n in self.graph.nodes
            if n.name in self.roundable.union(self.wanted) and not self._passes_integers(n)
        }
        self.watches = {name: [quant.observe] for name, quant in self.quants.items()}
        for node in self.graph.nodes:
            if getattr(node.target, "overloadpacket", None) in WORK:
                self.watches.setdefault(node.name, []).append(self._count_work)
        for name in self.covered:
            handler = self.matches[name][1]
            if not isinstance(handler, Rule) or type(handler).observe is not Rule.observe:
                self.watches.setdefault(name, []).insert(0, handler.observe)

    def _keep_float(self, entries: tuple[str | int, ...]) -> None:
        """Turn float what `Config.keep_float` names; ConfigError for one that names nothing."""
        for entry in entries:
            for site in select(entry, self.covered):
                self.float_reasons[site] = f"keep_float={entry!r}"

    def _find_convolutional(self) -> None:
        """Which values are a convolution's output, passed on (see `Rule.convolutional`)."""
        self.convolutional: set[str] = set()
        for node in self.graph.nodes:
            rule = self.rule_of(node)
            if rule is None:
                continue
            inputs = [n for n in rule.operator.all_input_nodes if n.op != "get_attr"]
            passed = bool(inputs) and all(n.name in self.convolutional for n in inputs)
            if rule.convolutional or (rule.convolutional is None and passed):
                self.convolutional.add(node.name)

    def _find_wanted(self) -> None:
        """Backwards: which values some site reads as integers, through operators that pass them.

        Sets `wanted` (value -> spec), `reads` (site -> inputs read as integers) and `ranges`
        (value -> the value whose scale and zero_point it shares). What only matrix products
        read `may_be_signed`: OpenVINO adds to and convolves int8 activations less surely.
        """
        self.wanted: dict[str, QSpec] = {}
        self.reads: dict[str, list[fx.Node]] = {}
        self.ranges: dict[str, str] = {}
        unsigned: set[str] = set()
        for node in reversed(self.graph.nodes):
            if node.name not in self.covered or node.name in self.float_reasons:
                continue
            handler = self.matches[node.name][1]
            shares = False
            if isinstance(handler, Rule):
                reads = handler.wants(self, node.name in self.wanted)
                shares = handler.shares_range and bool(reads)
                spec = self.wanted[node.name] if shares else handler.input_spec
            else:
                covered = set(self.covered[node.name])
                reads = [i for n in covered for i in n.all_input_nodes if i not in covered]
                spec = ACTIVATION
            if reads:
                self.reads[node.name] = reads
            takes_signed = getattr(handler, "signed_input", False)
            if node.name in unsigned if shares else not takes_signed:
                unsigned |= {n.name for n in reads}
            for n in reads:
                if not (spec == ACTIVATION and n.name in self.wanted):
                    self.wanted[n.name] = spec
                if shares:
                    self._join(n.name, node.name)
        unsigned = {self.range_of(n) for n in unsigned}
        self.may_be_signed = {n for n in self.wanted if self.range_of(n) not in unsigned}
        self._find_roundable()

    def _find_roundable(self) -> None:
        """What int8 convolutions give to float operators alone, on the way to integers again."""
        self.roundable: set[str] = set()
        leads_on: set[fx.Node] = set()
        for node in reversed(self.graph.nodes):
            reads = node.name in self.reads
            if node.users and leads_on.issuperset(node.users):
                leads_on.add(node)
                if reads and node.name not in self.wanted and isinstance(self.rule_of(node), Conv):
                    self.roundable.add(node.name)
            if reads:
                leads_on.update(self.covered[node.name])

    def _join(self, a: str, b: str) -> None:
        a, b = self.range_of(a), self.range_of(b)
        if a != b:
            self.ranges[b] = a

    def _count_work(self, node: fx.Node, env: Mapping[str, Any]) -> None:
        """Note an operator's multiply-adds per sample, the first time it runs."""
        if node.name not in self.work:
            inputs = [env[n.name] for n in node.all_input_nodes]
            total = multiply_adds(node, env[node.name], inputs)
            self.work[node.name] = total // max(self.batch_size, 1)

    # ---- what rules and the conversion ask

    def range_of(self, name: str) -> str:
        """The value whose scale and zero_point the value `name` shares (often its own)."""
        while name in self.ranges:
            name = self.ranges[name]
        return name

    def spec_of(self, name: str) -> QSpec:
        """The integers of a value: symmetric if anything that shares its range must be."""
        group = [s for n, s in self.wanted.items() if self.range_of(n) == self.range_of(name)]
        return next((s for s in group if s.symmetric), ACTIVATION)

    def ceiling_of(self, name: str) -> float:
        """The highest number the integers of a value need: the least clip of an equalized one.

        So the integers' own end is the clip of each channel (see `Conversion.saturates`).
        """
        node, _ = self.matches.get(name, (None, None))
        alone = [n for n in self.quants if self.range_of(n) == name] == [name]
        if node is None or node.target is not aten.clamp.Tensor or not alone:
            return math.inf
        bound = node.args[2]
        constant = isinstance(bound, fx.Node) and bound.op == "get_attr"
        return float(attribute(self.module, bound.target).min()) if constant else math.inf

    def quant_of(self, node: fx.Node) -> Any:
        """The object that quantizes a value: of all that share its range, merged."""
        group = self.range_of(node.name)
        if group not in self._group_quants:
            members = [q for n, q in self.quants.items() if self.range_of(n) == group]
            if not members:
                raise ConversionError(
                    f"no observer for {describe(node)}: nothing asked for its range"
                )
            first, *rest = members
            if rest:
                first = copy.copy(first)
                first.observer = copy.deepcopy(first.observer)
                for other in rest:
                    first.merge(other)
            first.name = group
            self._group_quants[group] = first
        return self._group_quants[group]

    def qparams_of(self, node: fx.Node) -> QParams | None:
        """scale and zero_point of a value; None if nobody reads it as integers."""
        group = self._group_quants.get(self.range_of(node.name))
        return group.qparams() if node.name in self.wanted and group is not None else None

    def emitted(self) -> dict[str, fx.Node]:
        """Each site's value in the quantized graph, before it is quantized for its readers."""
        c = self.conversion
        known = {**c.quant_env, **c.env, **c.computed}
        return {name: known[name] for name in self.covered if name in known}

    def weighted_sites(self) -> list[Weighted]:
        """The rules of all sites whose weight became int8."""
        return [rule for rule in self._weighted() if rule.root in self.conversion.copies]

    def _weighted(self) -> Iterator[Weighted]:
        for name in self.reads:
            rule = self.rule_of(self.matches[name][0])
            if isinstance(rule, Weighted):
                yield rule

    @property
    def batched(self) -> bool:
        """Whether the layers are called on batches of samples, not each time on one without."""
        return all(rule.batched(self) for rule in self._weighted())

    def rule_of(self, node: fx.Node) -> Rule | None:
        """The rule whose site ends at `node`."""
        root, handler = self.matches.get(node.name, (None, None))
        return handler if root is node and isinstance(handler, Rule) else None

    def is_rule(self, node: fx.Node) -> bool:
        """Whether `node` ends a site of one of Octavo's own rules."""
        return self.rule_of(node) is not None

    def is_active(self, node: fx.Node) -> bool:
        """Whether the site that ends at `node` is to be emitted by its handler."""
        return node.name not in self.float_reasons

    def reads_integers(self, rule: Rule) -> bool:
        """Whether any input of the rule's site is read as integers."""
        return rule.root.name in self.reads

    def _passes_integers(self, node: fx.Node) -> bool:
        return isinstance(self.rule_of(node), PassThrough) and node.name in self.reads

    # ---- observe

    def observe(self, *args: Any, **kwargs: Any) -> Any:
        """Run one batch through the float graph, recording ranges; returns the model's output."""
        if not hasattr(self, "graph"):
            self.capture((args, kwargs))
        if self.signature is None:
            if len(args) == 1 and isinstance(args[0], tuple | list):
                args = tuple(args[0])  # the original took its arguments as one tuple
            return self.calibrator.calibrate(*args)
        return self.signature.unflatten(self.observe_flat(self.flatten(args, kwargs)))

    def flatten(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[Tensor]:
        """A call's inputs as the captured graph takes them; DataError if it is another call."""
        assert self.signature is not None
        try:
            return self.signature.flatten(args, kwargs)
        except CaptureError as e:
            raise DataError(f"calibration batches differ: {e}") from e

    def observe_flat(self, inputs: Sequence[Tensor]) -> Any:
        """`observe` of flat inputs, returning flat outputs."""
        self.batch_size = inputs[0].shape[0] if inputs[0].dim() else 1
        self.weights.clear()  # who observes again may have trained the model on
        return self.calibrator.calibrate(*inputs)

    def observed(self) -> dict[str, DefaultQuant]:
        """What was seen of each value, to be taken in by the quantizer of another process."""
        seen = {name: copy.copy(quant) for name, quant in self.quants.items()}
        for quant in seen.values():
            quant.quantizer = None
        return seen

    def take_in(self, observed: Mapping[str, DefaultQuant]) -> None:
        """Merge what another process observed of the same graph."""
        for name, quant in self.quants.items():
            quant.merge(observed[name])

    @property
    def calibrator(self) -> Calibrator:
        """An interpreter of the float graph that shows values to their observers."""
        return Calibrator(self.module, self.watches)

    # ---- quantize

    def set_float(self, sites: Mapping[str, str]) -> None:
        """Let exactly these sites stay float: name of the last node -> reason."""
        self.float_reasons = dict(sites)
        self._find_wanted()

    def quantize(self) -> fx.GraphModule:
        """The quantized graph. From a captured model: flat tensors in, flat tuple out.

        May be called again after more `observe` or `set_float`.
        """
        if not hasattr(self, "graph"):
            raise DataError("nothing was observed: call observe(*inputs) before quantize()")
        self._group_quants: dict[str, Any] = {}
        for root, reads in self.reads.items():
            odd = [n for n in reads if not getattr(self.quants.get(n.name), "all_tensors", True)]
            if odd and root not in self.float_reasons and self.is_rule(self.matches[root][0]):
                self.float_reasons[root] = f"{describe(odd[0])} is not a tensor"
        self._find_wanted()
        self.conversion = Conversion(self)
        return self.conversion.run()

    @property
    def quantized_graph(self) -> fx.Graph:
        """The graph being emitted, for handlers that create nodes themselves."""
        return self.conversion.graph

    def emit(self, rule: Rule) -> fx.Node:
        """Copy a rule's nodes into the quantized graph, reading integers where it wants them."""
        return self.conversion.rule(rule)

    def emit_quantize(self, node: fx.Node, value: fx.Node) -> fx.Node:
        """Emit the quantization of `value`, the quantized graph's form of `node`."""
        return self.conversion.quantize(node, value)

    def emit_roundable(self, node: fx.Node, value: fx.Node) -> fx.Node:
        """Emit `value`, the form of `node`, with the integers that it may be rounded to."""
        return self.conversion.told(
            node, self.conversion.quantize(node, value), ops.requantize_hint
        )

    def copy_on_integers(self, rule: Rule) -> fx.Node:
        """Copy a rule's node to run on the integers of its input."""
        return self.conversion.on_integers(rule.root)


def _complex(rule: Rule) -> str:
    """Why a site of complex numbers stays float; an empty string for any other."""
    values = (n.meta.get("val") for n in (rule.root, *rule.operator.all_input_nodes))
    found = any(isinstance(v, Tensor) and v.is_complex() for v in values)
    return "its numbers are complex" if found else ""
