"""A quantized graph in QDQ form, as ONNX and ONNX Runtime's kernels expect it."""

from __future__ import annotations

import copy
import operator
from typing import Any

import torch
from torch import fx

from ...graph import ops
from ...graph.names import own_path
from ...graph.operators import Kind, is_operator, operator_of
from ...graph.qparams import ACTIVATION, choose_qparams
from ...graph.recurrent import rounded_lstm
from ...graph.tensors import attribute, is_constant, new_attribute
from ..qdq import Dequantize, Quantize
from ..unsigned import make_unsigned
from .activations import ACTIVATIONS, CONVOLUTIONS, GATES, domain, reachable
from .dynamic import replace_dynamic_layers

aten = torch.ops.aten


# operators whose result jumps when what they read is rounded, and those whose second output does
DECISIONS = (
    *("argmax", "argmin", "argsort", "eq", "ne", "gt", "ge", "lt", "le", "sign", "round", "floor"),
    *("ceil", "trunc", "fmod", "remainder", "floor_divide", "searchsorted", "bucketize", "nonzero"),
)
INDICES = (
    *("max", "min", "sort", "topk", "kthvalue", "median", "mode", "cummax", "cummin"),
    *(f"max_pool{d}d_with_indices" for d in (1, 2, 3)),
    *(f"adaptive_max_pool{d}d" for d in (1, 2, 3)),
)


# Ranges of calibration's extremes are widened by this: it costs at most 1 dB of what is rounded to
# them, and inputs of another scale are clipped later (30 % larger: 10 dB more against PyTorch).
ROOM = 1.25


def to_qdq(module: fx.GraphModule) -> fx.GraphModule:
    """A copy of the graph in which zero_points have the type of the integers, as ONNX requires.

    A `fuse_in_accumulator` value is requantized, since no ONNX runtime adds to accumulators. On x86
    ONNX Runtime has integer kernels for uint8 activations only, for weights with explicit
    zero_points, for an int32 bias in the scale of the accumulator, and for convolutions whose
    output is quantized at once (in float they take 2 to 8 times as long, by ConvInteger up to 25
    times). So values with a hint are rounded to a little more than the range that calibration saw,
    and clipped there, unless a comparison or an index depends on them.
    """
    module = copy.deepcopy(module)
    make_unsigned(module)
    replace_dynamic_layers(module)
    _dequantize_tables(module)
    for node in list(module.graph.nodes):
        if (q := Quantize.of(module, node)) is not None and not q.is_hint:
            _quantize_before_activation(module, q)
        elif node.target is aten.linear.default:
            _quantize_bias(module, node)
    for node in list(module.graph.nodes):
        if (q := Quantize.of(module, node)) is not None and q.is_hint:
            with module.graph.inserting_before(node):
                node.replace_all_uses_with(_rounded(module, q))
    _type_zero_points(module)
    module.graph.eliminate_dead_code()
    module.recompile()
    return module


def _dequantize_tables(module: fx.GraphModule) -> None:
    """Give recurrent layers and bags of embeddings float weights: their kernels take no others."""
    for node in list(module.graph.nodes):
        d = Dequantize.of(module, node)
        if d is None or not d.is_weight or not any(map(_takes_floats, node.users)):
            continue
        weight = ops.dequantize(attribute(module, d.q.target), d.scale, None, d.axis)
        with module.graph.inserting_before(node):
            path = own_path("dequantized", d.q.name)
            node.replace_all_uses_with(new_attribute(module, path, weight), _takes_floats)


def _takes_floats(node: fx.Node) -> bool:
    is_layer = operator_of(node).kind is Kind.RECURRENT or node.target is rounded_lstm
    return is_layer or is_operator(node, "embedding_bag")


def _rounded(module: fx.GraphModule, hint: Quantize) -> fx.Node:
    """The value of a hint as ONNX Runtime's kernels give it."""
    if hint.node.target is ops.fuse_in_accumulator:  # beside a value of the same kind of range
        return _fake_quantized(module.graph, hint.x, *hint.qparams)
    if _is_decided_upon(hint.node):
        return hint.x
    low, high = (ROOM * bound.item() for bound in hint.bounds)
    return _fake_quantized_to(module, hint.x, low, high)


def _is_decided_upon(value: fx.Node) -> bool:
    """Whether a comparison or an index depends on a value before it is quantized anyway."""
    seen, ahead = {value}, [value]
    while ahead:
        for user in ahead.pop().users:
            if is_operator(user, *DECISIONS):
                return True
            if is_operator(user, *INDICES) and _is_index_read(user):
                return True
            if user.target is not ops.quantize and user not in seen:
                seen.add(user)
                ahead.append(user)
    return False


def _is_index_read(node: fx.Node) -> bool:
    """Whether something reads the second of an operator's outputs."""
    return any(n.target is operator.getitem and n.args[1] == 1 and n.users for n in node.users)


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

    Its range is that of calibration, or what the input's range and the weights allow in a graph
    without hints before activations, and as narrow as the integers of the activation allow.
    """
    activation: Any = q.x
    if activation.target not in ACTIVATIONS or len(activation.users) > 1:
        return
    before: Any = activation.args[0]
    hint = Quantize.of(module, before)
    conv: Any = before if hint is None else hint.x
    if conv.target not in CONVOLUTIONS or len(conv.users) > 1 or len(before.users) > 1:
        return
    if Dequantize.of(module, conv.args[0]) is None:
        return
    seen = reachable(module, conv) if hint is None else hint.bounds
    low, high = (b.item() for b in q.bounds)
    interval = domain(activation, low, high, q.scale.item())
    if interval is None:
        return
    low, high = max(interval[0], seen[0].item()), min(interval[1], seen[1].item())
    if low >= high:
        return
    call = module.graph.call_function
    with module.graph.inserting_before(activation):
        x = _fake_quantized_to(module, conv, low, high)
        if activation.target in GATES:  # it has no integer kernel itself: x * gate(x)
            gate = GATES[activation.target]
            most = gate(torch.tensor(high)).item()
            product = (x, _fake_quantized_to(module, call(gate, (x,)), 0.0, most))
            activation.replace_all_uses_with(call(aten.mul.Tensor, product))
        else:
            activation.update_arg(0, x)
