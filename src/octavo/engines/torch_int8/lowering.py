"""Lowering: a quantized graph rewritten to PyTorch's oneDNN kernels, for the engine torch_int8.

Each convolution or linear layer between integers becomes one kernel, with the activation after
it, the residual it is added to and the rounding of what comes out. The rest runs as it stands,
in float; scales and zero_points become numbers.
"""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import torch
from torch import Tensor, fx

from ...capture.signature import Signature
from ...errors import EngineError
from ...graph import ops
from ...graph.tensors import attribute, drop_unread
from ..unsigned import make_unsigned

aten = torch.ops.aten
PostOp = tuple[str, list[Any], str]  # the kernel's name of an activation, its numbers, its form
NO_POST_OP: PostOp = ("none", [], "")


class Kernel(NamedTuple):
    """What computes a layer in integers, and what of it the kernel can also do."""

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
# activation -> what the kernels call it
POST_OPS: dict[Any, Callable[[Any], PostOp]] = {
    aten.relu.default: lambda n: ("relu", [], ""),
    aten.hardtanh.default: lambda n: ("hardtanh", [float(v) for v in n.args[1:3]], ""),
    aten.hardswish.default: lambda n: ("hardswish", [], ""),
    aten.silu.default: lambda n: ("swish", [], ""),
    aten.tanh.default: lambda n: ("tanh", [], ""),
    aten.leaky_relu.default: lambda n: ("leaky_relu", [float(n.args[1])], ""),
    aten.gelu.default: lambda n: ("gelu", [], n.kwargs.get("approximate", (*n.args, "none")[1])),
}
# operators whose integers are those of their inputs, where these share a scale -> on integers
MOVING: dict[Any, Any] = {
    aten.max_pool2d.default: torch.ops.quantized.max_pool2d.default,
    aten.cat.default: aten.cat.default,
    aten.upsample_nearest2d.vec: aten.upsample_nearest2d.vec,
    aten.constant_pad_nd.default: aten.constant_pad_nd.default,
    aten.pad.default: aten.pad.default,
}
LENGTHS = (64, 2, 4096)  # tried in turn
PADS = {aten.constant_pad_nd.default: (), aten.pad.default: ("constant",)}  # -> the mode, if any


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
    """What a kernel is to give: integers of a type, or float32."""

    last: fx.Node  # the last node it replaces
    scale: float = 1.0
    zero_point: int = 0
    dtype: torch.dtype = torch.float32


class Lowering:
    """One run of `lower`: the copy that is rewritten, and what its values are."""

    def __init__(self, module: fx.GraphModule, signature: Signature) -> None:
        self.module = copy.deepcopy(module)
        self.graph = self.module.graph
        # for int8 activations oneDNN's kernels are a thousand times slower
        make_unsigned(self.module)
        self.values = _Shapes(self.module)
        self.values.look(signature)
        self.sums: list[fx.Node] = []  # kernels that add to a value in its place

    def number(self, node: Any) -> float:
        """The one number a tensor of the graph holds."""
        return attribute(self.module, node.target).item()

    def integers(self, node: Any) -> Integers | None:
        """The integers that `node` is the dequantized form of, if it is of one scale."""
        if not isinstance(node, fx.Node) or node.target is not ops.dequantize:
            return None
        q: Any
        q, scale, zero_point, axis = (*node.args, None, None)[:4]
        if q.op == "get_attr" or axis is not None:
            return None
        zero = 0 if zero_point is None else int(self.number(zero_point))
        return Integers(q, self.number(scale), zero)

    def weight(self, node: Any) -> tuple[Tensor, Tensor] | None:
        """int8 weight and the scale of each output channel."""
        if not isinstance(node, fx.Node) or node.target is not ops.dequantize:
            return None
        q, scale, zero_point, axis = (*node.args, None, None)[:4]
        if q.op != "get_attr" or zero_point is not None or axis != 0:
            return None
        return attribute(self.module, q.target), attribute(self.module, scale.target)

    def rounded(self, node: fx.Node) -> Output:
        """The integers that `node` alone becomes, or float32."""
        q = _only_user(node)
        if q is None or q.target is not ops.quantize or len(q.args) > 6:
            return Output(node)
        scale, zero_point, dtype = (q.args[i] for i in (1, 2, 5))
        assert isinstance(dtype, torch.dtype)
        return Output(q, self.number(scale), int(self.number(zero_point)), dtype)

    # ---- rules: each replaces nodes by a kernel, or leaves them

    def layer(self, node: fx.Node) -> None:
        """A convolution or linear layer, what is added to it, its activation, its rounding."""
        kernel: Kernel = KERNELS[node.target]
        x, packed = self.integers(node.args[0]), self.weight(node.args[1])
        if x is None or packed is None:
            return
        added, last = self.residual(node) or (None, node)
        post_op, last = self.post_op(last, frozenset({"relu"}) if added else kernel.post_ops)
        output = self.rounded(last)
        if added and output.dtype is torch.float32:
            added, (post_op, last) = None, self.post_op(node, kernel.post_ops)
            output = self.rounded(last)
        with self.graph.inserting_before(output.last):
            weights, geometry = self.packed(node, x, *packed)
            goal = (output.scale, output.zero_point, output.dtype)
            packet = getattr(torch.ops.onednn, kernel.name)
            bias = node.args[2]
            if added is None:
                args = (*x, *weights, bias, *geometry, *goal, *post_op)
                new = self.graph.call_function(packet.default, args)
            else:
                of_sum = (added.scale, added.zero_point, "sum", 1.0, *post_op)
                args = (*x, *weights, added.node, bias, *geometry, *goal, *of_sum)
                new = self.graph.call_function(packet.binary, args)
                self.sums.append(new)
        self.put(new, output)

    def packed(
        self, node: fx.Node, x: Integers, weight: Tensor, scales: Tensor
    ) -> tuple[list[fx.Node], tuple[Any, ...]]:
        """A layer's weight as its kernel reads it, with scales and zero_points, and its strides."""
        shape = list(self.values.shape(x.node))  # decides the order in which weights lie
        geometry: tuple[Any, ...] = ()
        if node.target is aten.linear.default:
            packed = torch.ops.onednn.qlinear_prepack(weight, shape)
        else:
            geometry = _geometry(node, weight.dim() - 2)
            packed = torch.ops.onednn.qconv_prepack(weight, scales, *x[1:], *geometry, shape)
        zero_points = torch.zeros(len(scales), dtype=torch.int32)
        found = {"weight": packed, "scale": scales, "zero_point": zero_points}
        return [self.constant(f"{node.name}_{n}", t) for n, t in found.items()], geometry

    def residual(self, node: fx.Node) -> tuple[Integers, fx.Node] | None:
        """What a convolution's sums are added to, if it is integers, and the addition."""
        unrounded = _only_user(node)
        if unrounded is None or unrounded.target is not ops.fuse_in_accumulator:
            return None
        add = _only_user(unrounded)
        if add is None or add.target is not aten.add.Tensor or add.kwargs:
            return None
        (other,) = (a for a in add.args[:2] if a is not unrounded)
        added = self.integers(other)
        if node.target is not aten.conv2d.default or added is None:
            return None
        return (added, add) if self.values.shape(other) == self.values.shape(node) else None

    def post_op(self, node: fx.Node, known: Iterable[str]) -> tuple[PostOp, fx.Node]:
        """The activation that alone reads `node`, if the kernel has it."""
        user = _only_user(node)
        if user is not None and user.target in POST_OPS:
            found = POST_OPS[user.target](user)
            if found[0] in known:
                return found, user
        return NO_POST_OP, node

    def pair(self, node: fx.Node) -> None:
        """A sum or product of two values, integers in and out.

        oneDNN's own kernels (qadd, qmul) take bytes of 128 and more for negative in torch 2.14.
        """
        sides = [s for a in node.args[:2] if (s := self.integers(a)) is not None]
        output = self.rounded(node)
        if len(sides) < 2 or output.dtype is torch.float32 or node.kwargs:
            return
        target = add if node.target is aten.add.Tensor else multiply
        with self.graph.inserting_before(output.last):
            new = self.graph.call_function(target, (*sides[0], *sides[1], *output[1:3]))
        self.put(new, output)

    def moving(self, node: fx.Node) -> None:
        """An operator that gives its inputs' integers, if they and the output are of one scale."""
        inputs = {n: i for n in node.all_input_nodes if (i := self.integers(n)) is not None}
        output = self.rounded(node)
        scales = {i[1:] for i in inputs.values()}
        if len(inputs) < len(node.all_input_nodes) or scales != {output[1:3]}:
            return
        if node.target is aten.pad.default and "constant" not in (*node.args, "constant")[2:3]:
            return
        args = fx.map_arg(node.args, lambda n: inputs[n].node)
        if node.target in PADS:  # with 0, which the zero_point stands for
            args = (*args[:2], *PADS[node.target], output.zero_point)
        with self.graph.inserting_before(output.last):
            new = self.graph.call_function(MOVING[node.target], args)
        self.put(new, output)

    def put(self, new: fx.Node, output: Output) -> None:
        """Let a kernel stand for the last node that it replaces."""
        output.last.replace_all_uses_with(new)
        self.values.seen[new] = self.values.seen[output.last]

    # ---- the end

    def finish(self) -> fx.GraphModule:
        """Let sums overwrite only what nobody reads later, and numbers take scales' places."""
        for node in self.graph.nodes:
            if node.target in ops.HINTS:
                node.replace_all_uses_with(node.args[0])
        self.graph.eliminate_dead_code()
        for node in self.sums:
            self.protect(node)
        for node in list(self.graph.nodes):
            if node.target is ops.quantize and len(node.args) == 6:
                x, scale, zero_point = node.args[:3]
                self.replace(node, quantize, x, self.number(scale), int(self.number(zero_point)))
            elif (found := self.integers(node)) is not None:
                self.replace(node, dequantize, *found)
        self.graph.eliminate_dead_code()
        drop_unread(self.module)
        self.module.recompile()
        return self.module

    def protect(self, node: fx.Node) -> None:
        """Copy what a sum is written into, unless nothing else reads that memory from there on."""
        added = node.args[6]
        alone = all(u.target in NEW or _is_kernel(u) for u in (added, *added.users))
        if not alone or any(u > node for u in added.users):
            with self.graph.inserting_before(node):
                node.update_arg(6, self.graph.call_function(aten.clone.default, (added,)))

    def replace(self, node: fx.Node, target: Callable[..., Any], *args: Any) -> None:
        """Let a call of `target` stand for `node`."""
        with self.graph.inserting_before(node):
            node.replace_all_uses_with(self.graph.call_function(target, args))

    def constant(self, name: str, value: Tensor) -> fx.Node:
        """A tensor that a kernel reads, kept beside the model's own."""
        self.module.register_buffer(f"packed_{name}", value, persistent=False)
        return self.graph.get_attr(f"packed_{name}")


class _Shapes(fx.Interpreter):
    """The shape of each value, from one run."""

    def __init__(self, module: fx.GraphModule) -> None:
        super().__init__(module)
        self.seen: dict[fx.Node, tuple[int, ...]] = {}

    def look(self, signature: Signature) -> None:
        """Run on zeros, of a length that the model takes where one is free."""
        for length in LENGTHS:
            with contextlib.suppress(Exception):
                self.run(*signature.examples(length))
                return
        raise EngineError("no example of the model's inputs runs: use compile('openvino')")

    def run_node(self, n: fx.Node) -> Any:
        value = super().run_node(n)
        if isinstance(value, Tensor):
            self.seen[n] = tuple(value.shape)
        return value

    def shape(self, node: Any) -> tuple[int, ...]:
        return self.seen[node]


def _is_kernel(node: fx.Node) -> bool:
    return getattr(node.target, "namespace", "") in ("onednn", "quantized")


def _only_user(node: fx.Node) -> fx.Node | None:
    return next(iter(node.users)) if len(node.users) == 1 else None


def _geometry(node: Any, dims: int) -> tuple[Any, ...]:
    """stride, padding, dilation and groups of a convolution."""
    *lists, groups = node.args[3:]
    return (*(list(g) * (dims if len(g) == 1 else 1) for g in lists), groups)


# ---- what the lowered graph calls beside kernels


def quantize(x: Tensor, scale: float, zero_point: int) -> Tensor:
    """octavo::quantize to uint8 with numbers, in as few passes over memory as PyTorch takes."""
    return _rounded(torch.mul(x, 1 / scale), zero_point)


def _rounded(x: Tensor, zero_point: int) -> Tensor:
    """x, a new tensor of floats in steps, as integers: adding a half and cutting off rounds."""
    return x.add_(zero_point + 0.5).clamp_(0, 255.5).to(torch.uint8)


def add(
    a: Tensor, a_scale: float, a_zero: int, b: Tensor, b_scale: float, b_zero: int, *goal: Any
) -> Tensor:
    """a + b of integers, as integers of the scale and zero_point in `goal`."""
    scale, zero_point = goal
    first = torch.sub(a, float(a_zero)).mul_(a_scale / scale)
    second = torch.sub(b, float(b_zero))
    return _rounded(torch.add(first, second, alpha=b_scale / scale), zero_point)


def multiply(
    a: Tensor, a_scale: float, a_zero: int, b: Tensor, b_scale: float, b_zero: int, *goal: Any
) -> Tensor:
    """a * b of integers, as integers of the scale and zero_point in `goal`."""
    scale, zero_point = goal
    first, second = torch.sub(a, float(a_zero)), torch.sub(b, float(b_zero))
    return _rounded(first * second.mul_(a_scale * b_scale / scale), zero_point)


def dequantize(q: Tensor, scale: float, zero_point: int) -> Tensor:
    """octavo::dequantize with numbers."""
    x = torch.mul(q, scale)
    return x.sub_(zero_point * scale) if zero_point else x


NEW = {ops.quantize, ops.dequantize, add, multiply}  # their results share memory with nothing
