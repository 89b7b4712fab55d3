"""The operator table: one row for each ATen operator that Octavo knows.

Patterns find an operator by its aliases, rules are registered by `kind`, equalization reads how a
scale per channel passes through, reports count multiply-adds, files allow every operator listed,
and engines read which operators only move values. A new operator is a row here, and a rule in
`sites/rules` where no kind fits.
"""

from __future__ import annotations

import enum
import functools
import math
import operator
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn
from torch._ops import OpOverload

from .tensors import value_of

Axis = int | None


class Kind(enum.Enum):
    """Which rule an operator gets; None in a row means a rule of its own, or no rule."""

    ACTIVATION = "float between int8 operators; fused into the layer before it"
    NORMALIZATION = "float between int8 operators: needs sums over many values"
    RECURRENT = "float: rounding errors would accumulate in its state"
    LAYOUT = "moves values; runs on the integer tensor itself"
    REPEATING = "moves values; PyTorch has no integer kernel, so it runs on dequantized values"
    REDUCTION = "reads integers, computes in float, and its output has a range of its own"


@dataclass(frozen=True)
class Operator:
    """What Octavo knows of one ATen operator, in all overloads.

    name: of the ATen operator: "conv2d" for `torch.ops.aten.conv2d`.
    aliases: module types and functions that torch.export turns into it; the first is its pattern.
    kind: which rule it gets.
    weight_axis: axis of the constant weight, args[1], that counts output channels.
    channels: maps (node, channel axis of the input) to the channel axis of the output, for a scale
        per channel; None where such a scale cannot pass through.
    macs: multiply-adds of one run, from (output, inputs).
    elementwise: computed value by value from one tensor and numbers.
    """

    name: str
    aliases: tuple[Any, ...] = ()
    kind: Kind | None = None
    weight_axis: int | None = None
    channels: Callable[[fx.Node, int], Axis] | None = None
    macs: Callable[[Any, list[Any]], int] | None = None
    elementwise: bool = False

    @property
    def pattern(self) -> Any:
        """What its rule is registered under."""
        return self.aliases[0] if self.aliases else self.name


# ---- multiply-adds


def _conv(out: Tensor, inputs: list[Any]) -> int:
    return int(out.numel() * math.prod(inputs[1].shape[1:]))


def _conv_transpose(out: Tensor, inputs: list[Any]) -> int:
    return int(inputs[0].numel() * math.prod(inputs[1].shape[1:]))


def _linear(out: Tensor, inputs: list[Any]) -> int:
    return int(out.numel() * inputs[1].shape[-1])


def _matmul(out: Tensor, inputs: list[Any]) -> int:
    return int(out.numel() * inputs[0].shape[-1])


def _recurrent(inputs: list[Any], states: int) -> int:
    """Every step multiplies with every weight: x is (time, batch, features) in either order."""
    x, weights = inputs[0], inputs[1 + states :]
    steps = int(x.shape[:-1].numel())
    return steps * int(sum(w.numel() for w in weights if w.dim() == 2))


def _lstm(out: Any, inputs: list[Any]) -> int:
    return _recurrent(inputs, 2)


def _gru(out: Any, inputs: list[Any]) -> int:
    return _recurrent(inputs, 1)


# ---- how a scale per channel passes through


def _same(node: fx.Node, axis: int) -> Axis:
    return axis


def _clip(node: fx.Node, axis: int) -> Axis:
    """A clip to two numbers; bounds that are tensors would need the scale as well."""
    return None if any(isinstance(bound, fx.Node) for bound in node.args[1:3]) else axis


def _spatial(node: fx.Node, axis: int) -> Axis:
    return axis if axis == 1 else None


def _sum_of_two(node: fx.Node, axis: int) -> Axis:
    """Only if both operands are computed, of one rank: a constant would need the scale as well."""
    operands = node.args[:2]
    computed = all(isinstance(n, fx.Node) and n.op == "call_function" for n in operands)
    ranks = {value_of(n).dim() for n in operands} if computed else set()
    return axis if computed and ranks == {value_of(node).dim()} else None


def _mean(node: fx.Node, axis: int) -> Axis:
    rank = value_of(node.args[0]).dim()
    dims: Any = node.args[1] if len(node.args) > 1 else None
    if not dims or any(d % rank <= 1 for d in dims):
        return None
    return axis if axis == 1 else None


def _view(node: fx.Node, axis: int) -> Axis:
    """(batch, channels, ...) to (batch, channels, ...)."""
    before, after = value_of(node.args[0]).shape, value_of(node).shape
    kept = len(after) > 1 and str(before[0]) == str(after[0]) and before[1] == after[1]
    return 1 if axis == 1 and kept else None


def _another_axis(node: fx.Node, axis: int) -> Axis:
    """For an operator along the dimension args[1], which must not be the channel axis."""
    rank = value_of(node.args[0]).dim()
    given: Any = node.args[1] if len(node.args) > 1 else 0
    dim = given % rank
    removed = value_of(node).dim() < rank and dim < axis
    return None if dim == axis else axis - removed


# ---- the table


def _of_each_size(name: str, module: str, **known: Any) -> Iterator[Operator]:
    """The rows of an operator and its module in 1, 2 and 3 dimensions, which "%d" stands for."""
    for d in (1, 2, 3):
        yield Operator(name % d, (getattr(nn, module % d),), **known)


def _layers() -> Iterator[Operator]:
    """Operators with a constant weight, and products."""
    yield from _of_each_size("conv%dd", "Conv%dd", weight_axis=0, macs=_conv)
    yield from _of_each_size(
        "conv_transpose%dd", "ConvTranspose%dd", weight_axis=1, macs=_conv_transpose
    )
    yield Operator("linear", (nn.Linear,), weight_axis=0, macs=_linear)
    yield Operator("matmul", macs=_matmul)
    yield Operator("bmm", macs=_matmul)
    yield Operator("addmm", macs=_linear)
    yield Operator("baddbmm", macs=_linear)


def _activations() -> Iterator[Operator]:
    """Activations that engines fuse into the layer before them, and other elementwise functions."""
    row = functools.partial(Operator, kind=Kind.ACTIVATION, elementwise=True)
    yield row("relu", (nn.ReLU,), channels=_same)
    yield row("hardtanh", (nn.Hardtanh, nn.ReLU6, F.relu6), channels=_clip)
    yield row("clamp", channels=_clip, elementwise=False)  # its bounds may be tensors
    yield row("clamp_min", elementwise=False)
    yield row("leaky_relu", (nn.LeakyReLU,), channels=_same)
    yield row("prelu", (nn.PReLU,), elementwise=False)  # a slope for each channel
    yield row("hardswish", (nn.Hardswish,))
    yield row("silu", (nn.SiLU,))
    yield row("gelu", (nn.GELU,))
    yield row("sigmoid", (nn.Sigmoid,))
    yield row("hardsigmoid", (nn.Hardsigmoid,))
    yield row("tanh", (nn.Tanh,))
    yield row("elu", (nn.ELU,), kind=None)
    yield row("mish", (nn.Mish,), kind=None)
    yield row("softplus", (nn.Softplus,), kind=None)


def _float_operators() -> Iterator[Operator]:
    """Operators that are best left in float between int8 operators."""
    yield Operator("softmax", (nn.Softmax,), Kind.NORMALIZATION)
    yield Operator("log_softmax", (nn.LogSoftmax,), Kind.NORMALIZATION)
    yield Operator("layer_norm", (nn.LayerNorm,), Kind.NORMALIZATION)
    yield Operator("group_norm", (nn.GroupNorm,), Kind.NORMALIZATION)
    yield Operator("rms_norm", (), Kind.NORMALIZATION)
    yield Operator("batch_norm", (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d))
    yield Operator("instance_norm", (nn.InstanceNorm2d,))
    yield Operator("lstm", (nn.LSTM,), Kind.RECURRENT, macs=_lstm)
    yield Operator("gru", (nn.GRU,), Kind.RECURRENT, macs=_gru)
    yield Operator("rnn_tanh", (), Kind.RECURRENT, macs=_gru)
    yield Operator("rnn_relu", (), Kind.RECURRENT, macs=_gru)
    yield Operator("embedding", (nn.Embedding,))
    yield Operator("dropout", channels=_same)


def _arithmetic() -> Iterator[Operator]:
    yield Operator("add", (operator.add, operator.iadd), channels=_sum_of_two)
    yield Operator("mul", (operator.mul, operator.imul))
    yield Operator("div", (operator.truediv,))
    yield Operator("cat", (torch.cat, torch.concat))


def _pooling() -> Iterator[Operator]:
    for d, function in enumerate((F.max_pool1d, F.max_pool2d, F.max_pool3d), 1):
        aliases = (getattr(nn, f"MaxPool{d}d"), function)
        yield Operator(f"max_pool{d}d", aliases, Kind.REPEATING, channels=_spatial)
    yield from _of_each_size("avg_pool%dd", "AvgPool%dd", kind=Kind.REDUCTION, channels=_spatial)
    yield from _of_each_size(
        "adaptive_avg_pool%dd", "AdaptiveAvgPool%dd", kind=Kind.REDUCTION, channels=_spatial
    )
    yield Operator("adaptive_max_pool2d", (nn.AdaptiveMaxPool2d, F.adaptive_max_pool2d))
    yield Operator("mean", (torch.mean,), Kind.REDUCTION, channels=_mean)
    yield Operator("sum", (torch.sum,), Kind.REDUCTION)
    yield Operator("upsample_bilinear2d", (), Kind.REDUCTION, channels=_spatial)


def _moves() -> Iterator[Operator]:
    """Operators that move, copy or select values."""
    row = functools.partial(Operator, kind=Kind.LAYOUT)
    yield from (row(name, channels=_view) for name in ("view", "reshape"))
    yield from (row(name, channels=_another_axis) for name in ("slice", "select"))
    yield row("flatten", (nn.Flatten,), channels=_view)
    yield row("pixel_shuffle", (nn.PixelShuffle,))
    yield row("pixel_unshuffle", (nn.PixelUnshuffle,))
    for name in (
        *("_unsafe_view", "unflatten", "squeeze", "unsqueeze", "permute", "transpose", "t"),
        *("movedim", "narrow", "expand", "expand_as", "view_as", "repeat", "flip", "index_select"),
        *("channel_shuffle", *SEVERAL_OUTPUTS),
    ):
        yield row(name)
    yield Operator("upsample_nearest2d", (), Kind.REPEATING, channels=_spatial)
    for name in (
        *("upsample_nearest1d", "upsample_nearest3d", "pad", "constant_pad_nd"),
        *("reflection_pad1d", "reflection_pad2d", "reflection_pad3d", "replication_pad1d"),
        *("replication_pad2d", "replication_pad3d", "_upsample_nearest_exact1d"),
        *("_upsample_nearest_exact2d", "_upsample_nearest_exact3d"),
        *("im2col", "tril", "triu"),  # with zeros, which every range holds
        *("amax", "amin", "unfold", "index", "gather", "take"),
    ):
        yield Operator(name, (), Kind.REPEATING)
    yield Operator("clone", channels=_same)
    yield Operator("contiguous", channels=_same)
    yield Operator("roll")


SEVERAL_OUTPUTS = ("split", "split_with_sizes", "chunk", "unbind")  # their output is a list
OPERATORS: dict[str, Operator] = {
    row.name: row
    for group in (_layers, _activations, _float_operators, _arithmetic, _pooling, _moves)
    for row in group()
}
# module type or function -> the name of the operator it becomes
ALIASES: dict[Any, str] = {a: row.name for row in OPERATORS.values() for a in row.aliases}

_UNKNOWN = Operator("")


def operator_of(node: fx.Node) -> Operator:
    """The row of a node's operator; an empty one if the table has none."""
    target = node.target
    if isinstance(target, OpOverload) and target.namespace == "aten":
        return OPERATORS.get(target.overloadpacket.__name__, _UNKNOWN)
    return _UNKNOWN


def is_operator(node: Any, *names: str) -> bool:
    """Whether a node calls one of these ATen operators, in any overload."""
    target = node.target if isinstance(node, fx.Node) else None
    if not isinstance(target, OpOverload) or target.namespace != "aten":
        return False
    return target.overloadpacket.__name__ in names


def output_axis(layer: fx.Node) -> int:
    """The axis of a layer's output that counts channels: 1, or the last of a linear layer."""
    return value_of(layer).dim() - 1 if is_operator(layer, "linear") else 1


def has_batch(layer: fx.Node) -> bool:
    """Whether a layer, whose weight is args[1], is called on a batch of samples."""
    rank, of_weight = value_of(layer).dim(), value_of(layer.args[1]).dim()
    return bool(rank > 1 if of_weight == 2 else rank == of_weight)


def is_branch(node: fx.Node) -> bool:
    """Whether a node is a `torch.cond`, of which each branch is a graph of its own."""
    return node.target is torch.ops.higher_order.cond


def multiply_adds(node: fx.Node, output: Any, inputs: list[Any]) -> int:
    """Multiply-adds of one run of a node; 0 for operators without a matrix product."""
    macs = operator_of(node).macs
    return macs(output, inputs) if macs else 0
