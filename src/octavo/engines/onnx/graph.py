"""A quantized graph in QDQ form, as ONNX and ONNX Runtime's kernels expect it."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, fx

from ...graph import ops
from ...graph.names import own_path
from ...graph.operators import SEVERAL_OUTPUTS, is_operator
from ...graph.qparams import ACTIVATION, choose_qparams
from ...graph.tensors import attribute, is_constant, new_attribute
from ..qdq import Dequantize, Quantize
from ..unsigned import make_unsigned

aten = torch.ops.aten

CONVOLUTIONS = {aten.conv1d.default, aten.conv2d.default}
ACTIVATIONS = {
    *(aten.hardswish.default, aten.silu.default, aten.gelu.default, aten.sigmoid.default),
    *(aten.hardsigmoid.default, aten.tanh.default, aten.leaky_relu.default, aten.elu.default),
}
GATES = {aten.silu.default: aten.sigmoid.default, aten.hardswish.default: aten.hardsigmoid.default}
REACH = 512  # inputs of activations are searched in [-REACH, REACH]
POINTS = 2**17 + 1  # between 0.01 and 100, neighbours differ by at most 0.2 %


def to_qdq(module: fx.GraphModule) -> fx.GraphModule:
    """A copy of the graph in which zero_points have the type of the integers, as ONNX requires.

    A `fuse_in_accumulator` value is requantized, since no ONNX runtime adds to accumulators. Values
    are split as floats, since ONNX Runtime cannot split uint8. On x86 it has integer kernels for
    uint8 activations only, for weights with explicit zero_points, for an int32 bias in the scale of
    the accumulator, and for convolutions whose output is quantized before an activation.
    """
    module = copy.deepcopy(module)
    make_unsigned(module)
    for node in list(module.graph.nodes):
        if (q := Quantize.of(module, node)) is not None and not q.is_hint:
            _quantize_before_activation(module, q)
        elif node.target is aten.linear.default:
            _quantize_bias(module, node)
    for node in list(module.graph.nodes):
        if node.target in ops.HINTS:
            with module.graph.inserting_before(node):
                node.replace_all_uses_with(_fake_quantized(module.graph, *node.args[:3]))
    _type_zero_points(module)
    for node in module.graph.nodes:
        if is_operator(node, *SEVERAL_OUTPUTS):
            _split_floats(module, node)
    module.graph.eliminate_dead_code()
    module.recompile()
    return module


def _type_zero_points(module: fx.GraphModule) -> None:
    """Give zero_points the type of their integers, and add the zeros that weights leave out."""
    typed: dict[fx.Node, fx.Node] = {}  # a value is quantized before it is dequantized
    for node in module.graph.nodes:
        q, d = Quantize.of(module, node), Dequantize.of(module, node)
        if q is not None and not q.is_hint:
            zero_point = q.qparams[1]
            if zero_point not in typed:
                path = own_path("typed", zero_point.name, "zero_point")
                with module.graph.inserting_after(zero_point):
                    typed[zero_point] = new_attribute(module, path, q.zero_point.to(q.dtype))
            node.update_arg(2, typed[zero_point])
        elif d is not None and d.qparams[1] is not None:
            node.update_arg(2, typed[d.qparams[1]])
        elif d is not None and attribute(module, d.q.target).dtype is torch.int8:
            zeros = torch.zeros_like(d.scale, dtype=torch.int8)
            with module.graph.inserting_before(node):
                node.update_arg(2, new_attribute(module, own_path("zeros", node.name), zeros))


def _fake_quantized(graph: fx.Graph, x: fx.Node, scale: fx.Node, zero_point: fx.Node) -> fx.Node:
    """x as uint8 and back, at the graph's insertion point."""
    q = graph.call_function(ops.quantize, (x, scale, zero_point, 0, 255, torch.uint8))
    return graph.call_function(ops.dequantize, (q, scale, zero_point))


def _fake_quantized_to(module: fx.GraphModule, x: fx.Node, low: float, high: float) -> fx.Node:
    """x as uint8 in the range [low, high] and back, at the graph's insertion point."""
    path, qparams = own_path("rounded", x.name), choose_qparams(low, high, ACTIVATION)
    scale = new_attribute(module, f"{path}.scale", qparams.scale)
    zero_point = new_attribute(module, f"{path}.zero_point", qparams.zero_point)
    return _fake_quantized(module.graph, x, scale, zero_point)


def _quantize_bias(module: fx.GraphModule, linear: fx.Node) -> None:
    """The bias as int32 in the scale of the accumulator: input scale times weight scale."""
    x, weight = (Dequantize.of(module, n) for n in linear.args[:2])
    bias: Any = (*linear.args, None)[2]
    if x is None or weight is None or not is_constant(bias):
        return
    scale = x.scale * weight.scale
    integers = (attribute(module, bias.target) / scale).round()
    if integers.abs().max() >= 2**31:
        return
    with module.graph.inserting_before(linear):
        path = own_path("rounded", linear.name, "bias")
        q = new_attribute(module, path, integers.to(torch.int32))
        s = new_attribute(module, f"{path}_scale", scale)
        linear.update_arg(2, module.graph.call_function(ops.dequantize, (q, s, None, 0)))


def _quantize_before_activation(module: fx.GraphModule, q: Quantize) -> None:
    """If q quantizes the activation of a convolution, quantize the convolution's output too.

    Its range is as narrow as the integers of the activation's output allow.
    """
    activation: Any = q.x
    if activation.target not in ACTIVATIONS or len(activation.users) > 1:
        return
    conv: Any = activation.args[0]
    if conv.target not in CONVOLUTIONS or len(conv.users) > 1:
        return
    if Dequantize.of(module, conv.args[0]) is None:
        return
    low, high = (bound.item() for bound in q.bounds)
    interval = _domain(activation, low, high, q.scale.item())
    if interval is None:
        return
    call = module.graph.call_function
    with module.graph.inserting_before(activation):
        x = _fake_quantized_to(module, conv, *interval)
        if activation.target in GATES:  # it has no integer kernel itself: x * gate(x)
            gate = _fake_quantized_to(module, call(GATES[activation.target], (x,)), 0.0, 1.0)
            activation.replace_all_uses_with(call(aten.mul.Tensor, (x, gate)))
        else:
            activation.update_arg(0, x)


def _domain(activation: Any, low: float, high: float, step: float) -> tuple[float, float] | None:
    """The shortest interval to which an activation's input can be clipped.

    Clipping moves no output in [low, high] by more than a quarter of a step. None if no interval of
    inputs gives these outputs.
    """
    x = REACH * torch.linspace(-1, 1, POINTS, dtype=torch.float64) ** 3  # densest about 0
    y = activation.target(x, *activation.args[1:], **activation.kwargs)
    possible = (y > low - step) & (y < high + step)
    below = possible & _is_close_to_all_before(y, possible, step / 4)
    above = possible & _is_close_to_all_before(y.flip(0), possible.flip(0), step / 4).flip(0)
    if not below.any() or not above.any():
        return None
    start, end = int(below.nonzero().max()), int(above.nonzero().min())
    return (float(x[start]), float(x[end])) if start < end else None


def _is_close_to_all_before(y: Tensor, possible: Tensor, tolerance: float) -> Tensor:
    """For each of y: does none of the possible ones before it differ by more than tolerance?"""
    largest = torch.where(possible, y, -torch.inf).cummax(0)[0]
    smallest = torch.where(possible, y, torch.inf).cummin(0)[0]
    return (largest - tolerance <= y) & (smallest + tolerance >= y)


def _split_floats(module: fx.GraphModule, split: fx.Node) -> None:
    """Dequantize what a split of integers reads, and quantize each part."""
    source: Any = split.args[0]
    while (q := Quantize.of(module, source)) is None:
        if source.op != "call_function" or source.target is ops.dequantize:
            return  # floats already
        source = source.args[0]
    graph, integers = module.graph, (*q.qparams, q.qmin, q.qmax, q.dtype)
    with graph.inserting_before(split):
        x = graph.call_function(ops.dequantize, (split.args[0], *q.qparams))
    split.update_arg(0, x)
    for part in list(split.users):
        with graph.inserting_after(part):
            new = graph.call_function(ops.quantize, (part, *integers))
        part.replace_all_uses_with(new, lambda user, new=new: user is not new)  # type: ignore[misc]
