"""What a rule is. A rule object stands for one site: a root node and the nodes it covers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from torch import fx

from ...graph.qparams import ACTIVATION, QSpec
from ...graph.tensors import attribute

if TYPE_CHECKING:
    from ...quantizer import Quantizer

LoadArg = Callable[[Any], Any]


class Rule:
    """How an operator is quantized: which inputs it reads as integers and what it emits.

    The quantizer makes one object per match, `rule(quantizer, node)`, with `node` the last node
    covered; then `nodes` are all the nodes covered, inputs first. Subclasses mostly set
    attributes; `quantize` emits the covered nodes between dequantize and quantize, the form
    every engine knows how to run in integers.
    """

    precision: ClassVar[str] = "int8"
    input_spec: ClassVar[QSpec] = ACTIVATION
    lossless: ClassVar[bool] = False  # moves integers about, adds no error: never turned float
    idle_reason: ClassVar[str] = "no int8 operator reads its output"
    shares_range: ClassVar[bool] = False  # the output has the scale and zero_point of its inputs
    signed_input: ClassVar[bool] = False  # reads int8 as well as uint8
    # Whether the output is a convolution's: yes, no, or (None) if all computed inputs are. Adds
    # and products are int8 only among convolutions.
    convolutional: ClassVar[bool | None] = None

    def __init__(self, quantizer: Quantizer, node: fx.Node) -> None:
        self.root = node
        self.nodes: list[fx.Node] = [node]
        self.reason = ""
        self.unrounded: fx.Node | None = None  # the input an engine has as sums, not yet rounded

    @property
    def operator(self) -> fx.Node:
        """The node that gives the site its name: the first covered (conv of conv + relu)."""
        return self.nodes[0]

    def activations(self) -> list[fx.Node]:
        """The computed inputs this rule would read as integers."""
        return [n for n in self.operator.all_input_nodes if n.op != "get_attr"]

    def refuses(self, quantizer: Quantizer) -> str:
        """Why this site must stay float, or an empty string; asked before calibration."""
        return ""

    def wants(self, quantizer: Quantizer, output_wanted: bool) -> list[fx.Node]:
        """The inputs to read as integers, given whether somebody reads the output as integers."""
        return self.activations()

    def observe(self, node: fx.Node, env: Mapping[str, Any]) -> None:
        """Called after `node` ran in calibration; ranges are observed without help."""

    def weights(self) -> dict[fx.Node, int]:
        """Covered inputs stored as int8 -> the axis with a scale per index."""
        return {}

    def quantize(self, quantizer: Quantizer, node: fx.Node, load_arg: LoadArg) -> Any:
        """Emit the site: its node in the quantized graph, or NotImplemented to stay float."""
        value = quantizer.emit(self)
        return quantizer.emit_quantize(node, value) if node.name in quantizer.wanted else value


class Weighted(Rule):
    """An operator with a constant weight, `args[1]`, int8 with a scale per output channel."""

    channel_axis: ClassVar[int] = 0
    convolutional = False

    def batched(self, quantizer: Quantizer) -> bool:
        """Whether it is called on samples, not on one without a batch."""
        weight: Any = self.operator.args[1]
        rank, of_weight = (
            self.operator.meta["val"].dim(),
            attribute(quantizer.module, weight.target).dim(),
        )
        return rank > 1 if of_weight == 2 else rank == of_weight

    def activations(self) -> list[fx.Node]:
        """args[0] alone."""
        return [self.operator.args[0]]  # type: ignore[list-item]

    def weights(self) -> dict[fx.Node, int]:
        """args[1] along `channel_axis`."""
        return {self.operator.args[1]: self.channel_axis}  # type: ignore[dict-item]

    def refuses(self, quantizer: Quantizer) -> str:
        """A weight that is computed has no int8 form on file."""
        weight = self.operator.args[1]
        if not (isinstance(weight, fx.Node) and weight.op == "get_attr"):
            return "its weight is computed by the model, not a parameter"
        return ""


class FloatBetween(Rule):
    """Computed in float, between int8 neighbours: its output is quantized when one reads it."""

    precision = "float"
    float_reason: ClassVar[str] = "between int8 operators"

    def __init__(self, quantizer: Quantizer, node: fx.Node) -> None:
        super().__init__(quantizer, node)
        self.reason = self.float_reason

    def wants(self, quantizer: Quantizer, output_wanted: bool) -> list[fx.Node]:
        """Nothing: it reads float."""
        return []

    def quantize(self, quantizer: Quantizer, node: fx.Node, load_arg: LoadArg) -> Any:
        """Stay float for readers that take float; the first that does not quantizes it."""
        return quantizer.emit(self)


class PassThrough(Rule):
    """Moves, copies or selects values: works on the integers, scale and zero_point pass through.

    With `on_integers` the node itself runs on the integer tensor; without it (PyTorch has no
    integer kernel) it runs between dequantize and quantize with one scale, which is exact too.
    """

    lossless = True
    shares_range = True
    on_integers: ClassVar[bool] = True

    def activations(self) -> list[fx.Node]:
        """args[0]."""
        return [n for n in self.operator.all_input_nodes[:1] if n.op != "get_attr"]

    def wants(self, quantizer: Quantizer, output_wanted: bool) -> list[fx.Node]:
        """Integers, if and only if its own reader wants integers."""
        return self.activations() if output_wanted else []

    def quantize(self, quantizer: Quantizer, node: fx.Node, load_arg: LoadArg) -> Any:
        """Copy the node onto the integers of its input."""
        if not self.on_integers or not quantizer.reads_integers(self):
            return super().quantize(quantizer, node, load_arg)
        return quantizer.copy_on_integers(self)
