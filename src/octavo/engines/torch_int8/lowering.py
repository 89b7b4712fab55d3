"""Lowering: a quantized graph rewritten to PyTorch's oneDNN kernels, for the engine torch_int8.

Each convolution or linear layer with int8 operands becomes one kernel call, fused with the
activation after it, the residual addition and the requantization of its output. The other
operators stay as they are, in float. Scales and zero_points become numbers.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import torch
from torch import Tensor, fx

from ...capture.examples import calls
from ...capture.signature import Signature
from ...errors import EngineError
from ...graph import ops
from ...graph.interpreter import observe_values
from ...graph.qdq_checks import dynamic_input
from ...graph.recurrent import as_float_layer, rounded_lstm
from ...graph.tensors import attribute, drop_unread
from ..base import examples
from ..qdq import Dequantize, Quantize
from ..unsigned import make_unsigned
from .dynamic import dynamic_linear

aten = torch.ops.aten
PostOp = tuple[str, list[Any], str]  # an activation by the kernels' name, its numbers, its variant
NO_POST_OP: PostOp = ("none", [], "")


class Kernel(NamedTuple):
    """The integer kernel of a layer, and the activations that it can fuse."""

    name: str
    post_ops: frozenset[str]


CONV_POST_OPS = frozenset({"relu", "hardtanh", "hardswish", "swish"})
KERNELS: dict[Any, Kernel] = {
    aten.conv1d.default: Kernel("qconv1d_pointwise", CONV_POST_OPS),
    aten.conv2d.default: Kernel("qconv2d_pointwise", CONV_POST_OPS),
    aten.conv3d.default: Kernel("qconv3d_pointwise", frozenset()),
    aten.linear.default: Kernel(
        "qlinear_pointwise", CONV_POST_OPS | {"gelu", "tanh", "leaky_relu"}
    ),
}
# ATen activation -> the kernels' name for it
POST_OPS: dict[Any, Callable[[Any], PostOp]] = {
    aten.relu.default: lambda n: ("relu", [], ""),
    aten.hardtanh.default: lambda n: ("hardtanh", [float(v) for v in n.args[1:3]], ""),
    aten.hardswish.default: lambda n: ("hardswish", [], ""),
    aten.silu.default: lambda n: ("swish", [], ""),
    aten.tanh.default: lambda n: ("tanh", [], ""),
    aten.leaky_relu.default: lambda n: ("leaky_relu", [float(n.args[1])], ""),
    aten.gelu.default: lambda n: ("gelu", [], n.kwargs.get("approximate", (*n.args, "none")[1])),
}
# An operator that moves values -> the one that moves integers, if inputs and output share qparams.
MOVING: dict[Any, Any] = {
    aten.max_pool2d.default: torch.ops.quantized.max_pool2d.default,
    aten.cat.default: aten.cat.default,
    aten.upsample_nearest2d.vec: aten.upsample_nearest2d.vec,
    aten.constant_pad_nd.default: aten.constant_pad_nd.default,
    aten.pad.default: aten.pad.default,
}
PADS = {aten.constant_pad_nd.default: (), aten.pad.default: ("constant",)}  # -> the mode, if any
# Of example inputs, tried in turn; oneDNN chooses weight layouts by the first the model accepts.
LENGTHS = (64, 2, 4096)


@torch.no_grad()
def lower(module: fx.GraphModule, signature: Signature) -> fx.GraphModule:
    """A copy of a quantized graph in which integer kernels compute what they can."""
    lowering = Lowering(module, signature)
    for node in list(lowering.graph.nodes):
        if node.target in KERNELS:
            lowering.layer(node)
        elif node.target in (aten.add.Tensor, aten.mul.Tensor):
            lowering.pair(node)
        elif node.target in MOVING:
            lowering.moving(node)
    return lowering.finish()


class Integers(NamedTuple):
    """A value as integers: the node, its scale and its zero_point."""

    node: fx.Node
    scale: float
    zero_point: int


class Output(NamedTuple):
    """The output of a kernel: integers, or float32."""

    last: fx.Node  # the last node that the kernel replaces
    scale: float = 1.0
    zero_point: int = 0
    dtype: torch.dtype = torch.float32


class Lowering:
    """One run of `lower`: the copy that is rewritten, and the shapes of its values."""

    def __init__(self, module: fx.GraphModule, signature: Signature) -> None:
        self.module = copy.deepcopy(module)
        self.graph = self.module.graph
        # oneDNN's kernels are a thousand times slower on int8 activations
        make_unsigned(self.module)
        for node in self.graph.find_nodes(op="call_function", target=ops.requantize_hint):
            node.replace_all_uses_with(node.args[0])  # its kernels return float as well
            self.graph.erase_node(node)
        self.shapes = _shapes(self.module, signature)
        self.sums: list[fx.Node] = []  # kernels that write their sum into the residual operand

    def integers(self, node: Any) -> Integers | None:
        """The integers of a dequantized activation with one scale; None for any other value."""
        d = Dequantize.of(self.module, node)
        if d is None or d.is_weight or d.axis is not None:
            return None
        return Integers(d.q, d.scale.item(), 0 if d.zero_point is None else int(d.zero_point))

    def weight(self, node: Any) -> tuple[Tensor, Tensor] | None:
        """The integers of an int8 weight and the scale of each output channel."""
        d = Dequantize.of(self.module, node)
        if d is None or not d.is_weight or d.zero_point is not None or d.axis != 0:
            return None
        return attribute(self.module, d.q.target), d.scale

    def quantized(self, node: fx.Node | None) -> Output | None:
        """The integers of a quantize node with one scale; None for any other node."""
        q = Quantize.of(self.module, node)
        if q is None or q.is_hint or q.axis is not None:
            return None
        return Output(q.node, q.scale.item(), int(q.zero_point), q.dtype)

    def output(self, node: fx.Node) -> Output:
        """The integers that `node` is quantized to, if nothing else reads it; else float32."""
        return self.quantized(_only_user(node)) or Output(node)

    # ---- rules: each replaces nodes by a kernel call, or leaves them as they are

    def layer(self, node: fx.Node) -> None:
        """A convolution or linear layer, with its residual addition, activation and quantize."""
        kernel: Kernel = KERNELS[node.target]
        x, weight = self.integers(node.args[0]), self.weight(node.args[1])
        if weight is not None and (dynamic := dynamic_input(node.args[0])) is not None:
            self.dynamic_layer(node, *dynamic)
        if x is None or weight is None:
            return
        added, last = self.residual(node) or (None, node)
        post_op, last = self.post_op(last, frozenset({"relu"}) if added else kernel.post_ops)
        output = self.output(last)
        if added and output.dtype is torch.float32:
            added, (post_op, last) = None, self.post_op(node, kernel.post_ops)
            output = self.output(last)
        with self.graph.inserting_before(output.last):
            packed, geometry = self.packed(node, x, *weight)
            to_output = (output.scale, output.zero_point, output.dtype)
            packet = getattr(torch.ops.onednn, kernel.name)
            bias = node.args[2]
            if added is None:
                args = (*x, *packed, bias, *geometry, *to_output, *post_op)
                new = self.graph.call_function(packet.default, args)
            else:
                of_sum = (added.scale, added.zero_point, "sum", 1.0, *post_op)
                args = (*x, *packed, added.node, bias, *geometry, *to_output, *of_sum)
                new = self.graph.call_function(packet.binary, args)
                self.sums.append(new)
        self.replace_last(output, new)

    def dynamic_layer(self, node: fx.Node, x: fx.Node, group_size: int) -> None:
        """A linear layer whose input is rounded when it runs."""
        d = Dequantize.of(self.module, node.args[1])
        assert d is not None  # it has int8 weights
        args = (x, d.q, d.qparams[0], (*node.args, None)[2], group_size)
        self.replace(node, dynamic_linear, *args)

    def packed(
        self, node: fx.Node, x: Integers, weight: Tensor, scales: Tensor
    ) -> tuple[list[fx.Node], tuple[Any, ...]]:
        """A layer's weight, scales and zero_points in its kernel's layout; and its geometry."""
        shape = list(self.shapes[x.node])  # oneDNN chooses the weight's layout by it
        geometry: tuple[Any, ...] = ()
        if node.target is aten.linear.default:
            packed = torch.ops.onednn.qlinear_prepack(weight, shape)
        else:
            geometry = _geometry(node, weight.dim() - 2)
            packed = torch.ops.onednn.qconv_prepack(weight, scales, *x[1:], *geometry, shape)
        zero_points = torch.zeros(len(scales), dtype=torch.int32)
        tensors = {"weight": packed, "scale": scales, "zero_point": zero_points}
        return [self.constant(f"{node.name}_{n}", t) for n, t in tensors.items()], geometry

    def residual(self, node: fx.Node) -> tuple[Integers, fx.Node] | None:
        """The integers that are added to a convolution, of the same shape, and the addition."""
        hint = _only_user(node)
        if hint is None or hint.target is not ops.fuse_in_accumulator:
            return None
        add = _only_user(hint)
        if add is None or add.target is not aten.add.Tensor or add.kwargs:
            return None
        other: Any = add.args[1] if add.args[0] is hint else add.args[0]
        added = self.integers(other)
        if node.target is not aten.conv2d.default or added is None:
            return None
        return (added, add) if self.shapes[other] == self.shapes[node] else None

    def post_op(self, node: fx.Node, known: Iterable[str]) -> tuple[PostOp, fx.Node]:
        """The activation after `node` that the kernel can fuse, and the last node fused."""
        user = _only_user(node)
        if user is not None and user.target in POST_OPS:
            found = POST_OPS[user.target](user)
            if found[0] in known:
                return found, user
        return NO_POST_OP, node

    def pair(self, node: fx.Node) -> None:
        """A sum or product of two quantized values that is quantized itself.

        oneDNN's own kernels (qadd, qmul) take bytes of 128 and more for negative in torch 2.14.
        """
        sides = [s for a in node.args[:2] if (s := self.integers(a)) is not None]
        output = self.output(node)
        if len(sides) < 2 or output.dtype is torch.float32 or node.kwargs:
            return
        target = add if node.target is aten.add.Tensor else multiply
        with self.graph.inserting_before(output.last):
            new = self.graph.call_function(target, (*sides[0], *sides[1], *output[1:3]))
        self.replace_last(output, new)

    def moving(self, node: fx.Node) -> None:
        """An operator that moves values, if its inputs and its output share their qparams."""
        inputs = {n: i for n in node.all_input_nodes if (i := self.integers(n)) is not None}
        output = self.output(node)
        scales = {i[1:] for i in inputs.values()}
        if len(inputs) < len(node.all_input_nodes) or scales != {output[1:3]}:
            return
        if node.target is aten.pad.default and "constant" not in (*node.args, "constant")[2:3]:
            return
        args = fx.map_arg(node.args, lambda n: inputs[n].node)
        if node.target in PADS:  # the zero_point represents the padding's 0
            args = (*args[:2], *PADS[node.target], output.zero_point)
        with self.graph.inserting_before(output.last):
            new = self.graph.call_function(MOVING[node.target], args)
        self.replace_last(output, new)

    def replace_last(self, output: Output, new: fx.Node) -> None:
        """Put a kernel call in place of the last node that it computes."""
        output.last.replace_all_uses_with(new)
        self.shapes[new] = self.shapes[output.last]

    # ---- the end

    def finish(self) -> fx.GraphModule:
        """Keep sums from overwriting values that are read later; turn scales into numbers."""
        for node in self.graph.nodes:
            if node.target in ops.HINTS:
                node.replace_all_uses_with(node.args[0])
            elif node.target is rounded_lstm:  # its kernels have float states
                node.target, node.args = aten.lstm.input, as_float_layer(node.args)
        self.graph.eliminate_dead_code()
        for node in self.sums:
            self.protect(node)
        for node in list(self.graph.nodes):
            if (q := self.quantized(node)) is not None:
                self.replace(node, quantize, node.args[0], q.scale, q.zero_point)
            elif (integers := self.integers(node)) is not None:
                self.replace(node, dequantize, *integers)
        self.graph.eliminate_dead_code()
        drop_unread(self.module)
        self.module.recompile()
        return self.module

    def protect(self, node: fx.Node) -> None:
        """Let a sum overwrite a copy, unless it is the last to read the residual's memory."""
        added = node.args[6]
        alone = all(u.target in NEW_MEMORY or _is_kernel(u) for u in (added, *added.users))
        if not alone or any(u > node for u in added.users):
            with self.graph.inserting_before(node):
                node.update_arg(6, self.graph.call_function(aten.clone.default, (added,)))

    def replace(self, node: fx.Node, target: Callable[..., Any], *args: Any) -> None:
        """Put a call of `target` in place of `node`."""
        with self.graph.inserting_before(node):
            node.replace_all_uses_with(self.graph.call_function(target, args))

    def constant(self, name: str, value: Tensor) -> fx.Node:
        """Store a tensor that a kernel reads, and return its get_attr node."""
        self.module.register_buffer(f"packed_{name}", value, persistent=False)
        return self.graph.get_attr(f"packed_{name}")


def _shapes(module: fx.GraphModule, signature: Signature) -> dict[fx.Node, tuple[int, ...]]:
    """The shape of each value, from one run."""

    def run(*inputs: Tensor) -> dict[fx.Node, tuple[int, ...]]:
        shapes: dict[fx.Node, tuple[int, ...]] = {}

        def see(node: fx.Node, value: Any) -> None:
            if isinstance(value, Tensor):
                shapes[node] = tuple(value.shape)

        observe_values(module, inputs, see)
        return shapes

    for _, shapes in calls(examples(signature, LENGTHS), run):
        return shapes
    raise EngineError("no example of the model's inputs runs: use compile('openvino')")


def _is_kernel(node: fx.Node) -> bool:
    return getattr(node.target, "namespace", "") in ("onednn", "quantized")


def _only_user(node: fx.Node) -> fx.Node | None:
    return next(iter(node.users)) if len(node.users) == 1 else None


def _geometry(node: Any, dims: int) -> tuple[Any, ...]:
    """stride, padding, dilation and groups of a convolution."""
    *lists, groups = node.args[3:]
    return (*(list(g) * (dims if len(g) == 1 else 1) for g in lists), groups)


# ---- functions that the lowered graph calls beside kernels


def quantize(x: Tensor, scale: float, zero_point: int) -> Tensor:
    """octavo::quantize to uint8 with numbers, in as few passes over memory as PyTorch allows."""
    return _rounded(torch.mul(x, 1 / scale), zero_point)


def _rounded(x: Tensor, zero_point: int) -> Tensor:
    """x, divided by its scale, as uint8. In place; adding 0.5 makes the conversion round."""
    return x.add_(zero_point + 0.5).clamp_(0, 255.5).to(torch.uint8)


def add(
    a: Tensor, a_scale: float, a_zero: int, b: Tensor, b_scale: float, b_zero: int, *output: Any
) -> Tensor:
    """a + b of integers, as integers with the scale and zero_point in `output`."""
    scale, zero_point = output
    first = torch.sub(a, float(a_zero)).mul_(a_scale / scale)
    second = torch.sub(b, float(b_zero))
    return _rounded(torch.add(first, second, alpha=b_scale / scale), zero_point)


def multiply(
    a: Tensor, a_scale: float, a_zero: int, b: Tensor, b_scale: float, b_zero: int, *output: Any
) -> Tensor:
    """a * b of integers, as integers with the scale and zero_point in `output`."""
    scale, zero_point = output
    first, second = torch.sub(a, float(a_zero)), torch.sub(b, float(b_zero))
    return _rounded(first * second.mul_(a_scale * b_scale / scale), zero_point)


def dequantize(q: Tensor, scale: float, zero_point: int) -> Tensor:
    """octavo::dequantize with numbers."""
    x = torch.mul(q, scale)
    return x.sub_(zero_point * scale) if zero_point else x


# Their results share memory with no other tensor.
NEW_MEMORY = {ops.quantize, ops.dequantize, add, multiply}
