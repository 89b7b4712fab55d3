"""The base classes of rules. A rule object represents one site: the nodes that one match covers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

import torch
from torch import Tensor, fx

from ...graph.operators import has_batch
from ...graph.qparams import ACTIVATION, QSpec
from ...graph.tensors import constant, is_constant
from .renamed import accept_old_names


@dataclass(frozen=True)
class Context:
    """What a rule may query about the graph around its site.

    rules: the last node of each site -> its rule.
    convolutional: values that are a convolution's output, or moved or computed only from such.
    """

    module: fx.GraphModule
    rules: Mapping[fx.Node, Rule]
    convolutional: frozenset[fx.Node] = frozenset()

    def rule_of(self, node: fx.Node) -> Rule | None:
        """The rule whose site ends at `node`."""
        return self.rules.get(node)

    def tensor(self, node: fx.Node) -> Tensor:
        """The tensor that a get_attr node stands for."""
        return constant(self.module, node)


class Emitter(Protocol):
    """How a rule adds its site to the quantized graph; see `octavo.convert.emit`."""

    def emit(self, rule: Rule) -> fx.Node:
        """Copy the nodes of a site, on dequantized inputs and weights where it reads integers."""

    def emit_quantize(self, node: fx.Node, value: fx.Node) -> fx.Node:
        """Quantize `value`, which `node` of the float graph has become."""

    def emit_rows(self, rule: Rule) -> fx.Node:
        """Gather int8 rows of a table and dequantize them, where the site stores them so."""

    def emit_rounded_lstm(self, rule: Rule) -> fx.Node:
        """One layer of an LSTM on integers, its state rounded like its outputs."""

    def emit_on_integers(self, rule: Rule) -> fx.Node:
        """Copy the node of a site so that it runs on the integers of its input."""

    def is_demanded(self, node: fx.Node) -> bool:
        """Whether any site reads the value of `node` as integers."""

    def reads_integers(self, rule: Rule) -> bool:
        """Whether the site of `rule` reads any input as integers."""

    def load_arg(self, arg: Any) -> Any:
        """Arguments of the float graph as integers of the quantized graph."""


class Rule:
    """How an operator is quantized: which inputs it reads as integers and what it emits.

    One object is made for each match, from the nodes it covers, inputs first. Subclasses mostly set
    attributes; `emit` adds the covered nodes between dequantize and quantize, the pattern that
    every engine runs with integer kernels.

    precision: "int8", or "float" for a site that computes in float between int8 neighbours.
    input_spec: the integers that it reads.
    passthrough: moves integers without rounding; never turned float for accuracy.
    shares_qparams: the output has the scale and zero_point of the inputs.
    signed_input: reads int8 as well as uint8.
    convolutional: whether the output counts as a convolution's; None: if all computed inputs do.
        Sums and products are int8 only among convolutions.
    stores_int8: computes in float, with weights that are stored as int8.
    may_be_dynamic: engines have kernels that round its activations in each call anew.
    accumulator: engines fuse a following addition and activation into this operator's accumulator;
        the kernels of some engines return only integers.
    reason: why it stays float, set before `emit` returns NotImplemented.
    float_reason: the same for a rule whose precision is "float".
    undemanded_reason: why it is float although it could be int8: nothing demands integers.
    """

    precision: ClassVar[str] = "int8"
    input_spec: ClassVar[QSpec] = ACTIVATION
    passthrough: ClassVar[bool] = False
    shares_qparams: ClassVar[bool] = False
    signed_input: ClassVar[bool] = False
    convolutional: ClassVar[bool | None] = None
    stores_int8: ClassVar[bool] = False
    may_be_dynamic: ClassVar[bool] = False
    accumulator: ClassVar[bool] = False
    undemanded_reason: ClassVar[str] = "no int8 operator reads its output"
    float_reason: ClassVar[str] = ""
    reason: str = ""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        accept_old_names(cls)

    def __init__(self, nodes: Sequence[fx.Node]) -> None:
        self.nodes: tuple[fx.Node, ...] = tuple(nodes)

    @property
    def root(self) -> fx.Node:
        """The last node covered, whose value others read."""
        return self.nodes[-1]

    @property
    def operator(self) -> fx.Node:
        """The node after which the site is named: the first covered (conv of conv + relu)."""
        return self.nodes[0]

    def activations(self) -> list[fx.Node]:
        """The computed inputs this rule could read as integers."""
        return [n for n in self.operator.all_input_nodes if n.op != "get_attr"]

    def unsupported_reason(self, context: Context) -> str:
        """Why this site must stay float, or an empty string; asked before calibration."""
        return ""

    def quantized_inputs(self, context: Context, output_demanded: bool) -> list[fx.Node]:
        """The inputs to read as integers, given whether any site reads the output as integers."""
        return self.activations()

    def fused_input(self, context: Context) -> fx.Node | None:
        """The input that an engine takes, not yet rounded, from a convolution's accumulator."""
        return None

    def observe(self, node: fx.Node, env: Mapping[str, Any]) -> None:
        """Called after `node` ran in calibration; ranges are observed without it."""

    def weights(self) -> dict[fx.Node, int]:
        """Covered inputs stored as int8 -> the axis with a scale per index."""
        return {}

    def emit(self, emitter: Emitter) -> Any:
        """Add the site: its node in the quantized graph, or NotImplemented to stay float."""
        value = emitter.emit(self)
        return emitter.emit_quantize(self.root, value) if emitter.is_demanded(self.root) else value

    def quantize(self, emitter: Emitter, node: fx.Node, load_arg: Callable[[Any], Any]) -> Any:
        """Deprecated: what rules that override `quantize` call on `super()`; see `emit`."""
        native: Any = next(c for c in type(self).__mro__ if _emits(c))
        return native.emit(self, emitter)


def _emits(cls: type) -> bool:
    """Whether a class has an `emit` of its own, not one made from an old `quantize`."""
    return "emit" in vars(cls) and (cls is Rule or "quantize" not in vars(cls))


class Weighted(Rule):
    """An operator with a constant weight, `args[1]`, int8 with a scale per output channel."""

    channel_axis: ClassVar[int] = 0
    convolutional = False

    @property
    def has_batch(self) -> bool:
        """Whether it is called on batches, not on a single sample without a batch dimension."""
        return has_batch(self.operator)

    @property
    def weight(self) -> Any:
        """The node of the weight."""
        return self.operator.args[1]

    def activations(self) -> list[fx.Node]:
        """args[0] alone."""
        return [self.operator.args[0]]  # type: ignore[list-item]

    def weights(self) -> dict[fx.Node, int]:
        """args[1] along `channel_axis`."""
        return {self.weight: self.channel_axis}

    def unsupported_reason(self, context: Context) -> str:
        """A weight that the model computes cannot be stored as int8."""
        constant = is_constant(self.weight)
        return "" if constant else "its weight is computed by the model, not a parameter"


class FloatOp(Rule):
    """Computes in float, and quantizes its output for int8 consumers."""

    precision = "float"
    float_reason = "between int8 operators"

    def quantized_inputs(self, context: Context, output_demanded: bool) -> list[fx.Node]:
        """None: it reads float."""
        return []

    def emit(self, emitter: Emitter) -> Any:
        """Emit in float; the output is quantized when an int8 consumer first reads it."""
        return emitter.emit(self)


class PassThrough(Rule):
    """Moves, copies or selects integers; its output keeps their scale and zero_point.

    With `on_integers` the node itself runs on the integer tensor; without it (PyTorch has no
    integer kernel) it runs between dequantize and quantize with one scale, which is exact too.
    """

    passthrough = True
    shares_qparams = True
    on_integers: ClassVar[bool] = True

    def activations(self) -> list[fx.Node]:
        """args[0]."""
        return [n for n in self.operator.all_input_nodes[:1] if n.op != "get_attr"]

    def quantized_inputs(self, context: Context, output_demanded: bool) -> list[fx.Node]:
        """Its input, if and only if its output is read as integers."""
        return self.activations() if output_demanded else []

    def emit(self, emitter: Emitter) -> Any:
        """Copy the node onto the integers of its input."""
        if not self.on_integers or not emitter.reads_integers(self):
            return super().emit(emitter)
        return emitter.emit_on_integers(self)


def is_rule(handler: Any) -> bool:
    """Whether what stands in a pattern table is a rule class."""
    return isinstance(handler, type) and issubclass(handler, Rule)


def is_float(node: fx.Node) -> bool:
    """Whether a node's value is a floating point tensor."""
    value = node.meta.get("val")
    return isinstance(value, torch.Tensor) and value.dtype.is_floating_point
