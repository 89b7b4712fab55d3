"""A quantized graph in the form that ONNX and ONNX Runtime's kernels have."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import fx

from ...graph import ops
from ...graph.names import own_path
from ...graph.qparams import ACTIVATION, choose_qparams
from ...graph.tensors import attribute, new_attribute
from ..unsigned import make_unsigned

aten = torch.ops.aten

SPLITS = {aten.split, aten.split_with_sizes, aten.chunk, aten.unbind}
CONVOLUTIONS = {aten.conv1d.default, aten.conv2d.default}
ACTIVATIONS = {
    *(aten.hardswish.default, aten.silu.default, aten.gelu.default, aten.sigmoid.default),
    *(aten.hardsigmoid.default, aten.tanh.default, aten.leaky_relu.default, aten.elu.default),
}
GATES = {aten.silu.default: aten.sigmoid.default, aten.hardswish.default: aten.hardsigmoid.default}
REACH = 512  # of inputs of activations that are looked at
POINTS = 2**17 + 1  # between 0.01 and 100 they lie within 0.2 % of each other


def as_onnx_has_it(module: fx.GraphModule) -> fx.GraphModule:
    """A copy of the graph in which zero_points have the type of the integers, as ONNX has them.

    A `fuse_in_accumulator` value is rounded: no runtime of ONNX adds to sums. Integers are split as
    floats: ONNX Runtime splits no bytes. On x86 it has kernels for uint8 activations only, for
    weights whose zero_points are told, for a bias of integers in the scale of the sums, and for
    convolutions whose own output is rounded, before an activation.
    """
    module = copy.deepcopy(module)
    make_unsigned(module)
    for node in module.graph.find_nodes(op="call_function", target=ops.quantize):
        _round_before_activation(module, node)
    for node in module.graph.find_nodes(op="call_function", target=aten.linear.default):
        _round_bias(module, node)
    for node in list(module.graph.nodes):
        if node.target in ops.HINTS:
            with module.graph.inserting_before(node):
                node.replace_all_uses_with(_on_grid(module.graph, *node.args[:3]))
    typed: dict[fx.Node, fx.Node] = {}
    for node in module.graph.nodes:
        if node.target is ops.quantize:
            node.update_arg(2, _typed(module, node.args[2], node.args[5], typed))
        elif node.target is ops.dequantize and node.args[0].op == "get_attr":
            _give_zero_points(module, node)
        elif node.target is ops.dequantize and node.args[2:] and node.args[2] is not None:
            node.update_arg(2, _typed(module, node.args[2], None, typed))
    for node in module.graph.nodes:
        if getattr(node.target, "overloadpacket", None) in SPLITS:
            _split_floats(module.graph, node)
    module.graph.eliminate_dead_code()
    module.recompile()
    return module


def _typed(
    module: fx.GraphModule,
    zero_point: Any,
    dtype: torch.dtype | None,
    typed: dict[fx.Node, fx.Node],
) -> fx.Node:
    if zero_point not in typed:
        assert dtype is not None  # a value is quantized before it is dequantized
        value = attribute(module, zero_point.target).to(dtype)
        with module.graph.inserting_after(zero_point):
            path = own_path("typed", zero_point.name, "zero_point")
            typed[zero_point] = new_attribute(module, path, value)
    return typed[zero_point]


def _on_grid(graph: fx.Graph, x: fx.Node, scale: fx.Node, zero_point: fx.Node) -> fx.Node:
    """x as uint8 and back, at the graph's insertion point."""
    q = graph.call_function(ops.quantize, (x, scale, zero_point, 0, 255, torch.uint8))
    return graph.call_function(ops.dequantize, (q, scale, zero_point))


def _give_zero_points(module: fx.GraphModule, node: fx.Node) -> None:
    """The zeros that an int8 weight leaves out."""
    weight, scale = node.args[:2]
    zeros = torch.zeros_like(attribute(module, scale.target), dtype=torch.int8)
    if attribute(module, weight.target).dtype is torch.int8:
        with module.graph.inserting_before(node):
            path = own_path("zeros", node.name)
            node.update_arg(2, new_attribute(module, path, zeros))


def _round_bias(module: fx.GraphModule, linear: fx.Node) -> None:
    """The bias as int32 of input scale times weight scale: far finer than what it is added to."""
    x, weight, bias = (*linear.args, None)[:3]
    both = (x, weight, bias)
    if not all(isinstance(n, fx.Node) for n in both) or bias.op != "get_attr":
        return
    if x.target is not ops.dequantize or weight.target is not ops.dequantize:
        return
    scales = [attribute(module, n.args[1].target) for n in (x, weight)]
    scale = scales[0] * scales[1]
    integers = (attribute(module, bias.target) / scale).round()
    if integers.abs().max() >= 2**31:
        return
    with module.graph.inserting_before(linear):
        path = own_path("rounded", linear.name, "bias")
        q = new_attribute(module, path, integers.to(torch.int32))
        s = new_attribute(module, f"{path}_scale", scale)
        linear.update_arg(2, module.graph.call_function(ops.dequantize, (q, s, None, 0)))


def _round_before_activation(module: fx.GraphModule, quantize: fx.Node) -> None:
    """Round a convolution's output to what its activation, rounded after it, tells apart."""
    activation: Any = quantize.args[0]
    if activation.target not in ACTIVATIONS or len(activation.users) > 1:
        return
    conv: Any = activation.args[0]
    if conv.target not in CONVOLUTIONS or len(conv.users) > 1:
        return
    if conv.args[0].target is not ops.dequantize:
        return
    scale, zero_point = (attribute(module, n.target).item() for n in quantize.args[1:3])
    low, high = ((q - zero_point) * scale for q in quantize.args[3:5])
    interval = _domain(activation, low, high, scale)
    if interval is None:
        return
    call = module.graph.call_function
    with module.graph.inserting_before(activation):
        x = _rounded(module, conv, *interval)
        if activation.target in GATES:  # there is no integer kernel for all of it
            gate = _rounded(module, call(GATES[activation.target], (x,)), 0.0, 1.0)
            activation.replace_all_uses_with(call(aten.mul.Tensor, (x, gate)))
        else:
            activation.update_arg(0, x)


def _rounded(module: fx.GraphModule, x: fx.Node, low: float, high: float) -> fx.Node:
    """x rounded to a range of its own, at the graph's insertion point."""
    path, qparams = own_path("rounded", x.name), choose_qparams(low, high, ACTIVATION)
    scale = new_attribute(module, f"{path}.scale", qparams.scale)
    zero_point = new_attribute(module, f"{path}.zero_point", qparams.zero_point)
    return _on_grid(module.graph, x, scale, zero_point)


def _domain(activation: Any, low: float, high: float, step: float) -> tuple[float, float] | None:
    """The shortest interval that inputs can be clipped to: outputs in [low, high] move by less
    than a quarter of a step. None where the inputs of [low, high] have no end within reach.
    """
    x = REACH * torch.linspace(-1, 1, POINTS, dtype=torch.float64) ** 3  # densest about 0
    y = activation.target(x, *activation.args[1:], **activation.kwargs)
    possible = (y > low - step) & (y < high + step)
    # clipped at x[i], all possible inputs below get y[i]; above likewise
    below = torch.where(possible, y, -torch.inf).cummax(0)[0] - step / 4 <= y
    below &= torch.where(possible, y, torch.inf).cummin(0)[0] + step / 4 >= y
    above = torch.where(possible, y, -torch.inf).flip(0).cummax(0)[0].flip(0) - step / 4 <= y
    above &= torch.where(possible, y, torch.inf).flip(0).cummin(0)[0].flip(0) + step / 4 >= y
    first, last = (below & possible).nonzero(), (above & possible).nonzero()
    if not len(first) or not len(last):
        return None
    start, end = int(first.max()), int(last.min())
    return (float(x[start]), float(x[end])) if start < end else None


def _split_floats(graph: fx.Graph, split: fx.Node) -> None:
    source: Any = split.args[0]
    while source.target is not ops.quantize:
        if source.op != "call_function" or source.target is ops.dequantize:
            return  # floats already
        source = source.args[0]
    scale, zero_point, *integers = source.args[1:6]
    with graph.inserting_before(split):
        x = graph.call_function(ops.dequantize, (split.args[0], scale, zero_point))
    split.update_arg(0, x)
    for part in list(split.users):
        with graph.inserting_after(part):
            q = graph.call_function(ops.quantize, (part, scale, zero_point, *integers))
        part.replace_all_uses_with(q, lambda user, q=q: user is not q)  # type: ignore[misc]
