"""`octavo::rounded_lstm` for OpenVINO: LSTMSequence on rounded inputs, run in integers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import openvino.opset15 as ov
import torch
from openvino import Output
from torch import Tensor, fx

from ...graph.recurrent import is_made
from ...graph.tensors import attribute
from ..qdq import Dequantize, Quantize
from .recurrent import KINDS, joined, sequence, swapped
from .table import Unsupported
from .values import ints

LSTM = KINDS["lstm"]
ALIGNED = 4  # channels that one integer instruction takes
EXACT = 1e-5  # by which a scale may differ from what it must be, relative


class Loader(Protocol):
    """The Builder, as far as a layer needs it; layers: the shapes of those lowered so far."""

    module: fx.GraphModule
    layers: set[tuple[int, int]]

    def load(self, node: Any) -> Any:
        """The value of a node."""

    def call(self, node: fx.Node, *given: Any) -> Any:
        """The value of an operator on another first argument."""


def rounded_lstm(b: Loader, node: fx.Node) -> list[Output]:
    """One layer, with FakeQuantize of x and of the first h.

    oneDNN has one scale and zero_point for x and h, and one scale for a gate's weights of both. So
    the integers of x stand for numbers on the scale of h, which the weights and biases make up for.
    Unsupported where the scales of the two weights have another ratio than those of h and x, or
    where a unit's input gate has another scale than its forget gate (OpenVINO 2026.4 exchanges
    the two): there it would compute something else.
    """
    arguments: Any = node.args
    x, (h, c), weights, has_biases, bidirectional, batch_first, *integers = arguments
    given, q = Dequantize.of(b.module, x), None
    if given is None or (q := _quantize_behind(b.module, given.q)) is None:
        raise Unsupported("its input is not rounded", node)
    if [q.qmin, q.qmax] != integers[2:]:
        raise Unsupported("its input has other integers than its state", node)
    each = 4 if has_biases else 2
    if len(weights) != each * (1 + bool(bidirectional)):
        raise Unsupported("it has other weights than an LSTM", node)
    state = [attribute(b.module, n.target) for n in integers[:2]]
    parts = [
        _direction(b.module, weights[i : i + each], (q.scale, q.zero_point), state, node)
        for i in range(0, len(weights), each)
    ]
    w, r, scale, bias = (np.stack(arrays) for arrays in zip(*parts, strict=True))
    value = _unrounded(b, given.q)
    value, w = _made_unique(b, value if batch_first else swapped(value), w)
    matrices = (ov.multiply(ov.convert(ov.constant(m), "f32"), ov.constant(scale)) for m in (w, r))
    rounded = Dequantize.of(b.module, h)
    first = swapped(b.load(h if rounded is None else rounded.q.args[0]))
    if is_made(h):
        first = ov.add(first, _zero(value)).output(0)
    ends = [bounds(*integers[2:], *qparams) for qparams in ((q.scale, q.zero_point), state)]
    value = _fake_quantize(value, ends[0], ends[1], q.levels)
    first = _fake_quantize(first, ends[1], ends[1], q.levels)
    states = [first, swapped(b.load(c))]
    y, *last = sequence(LSTM, value, states, (*matrices, ov.constant(bias)), bool(bidirectional))
    y = joined(y)
    return [y if batch_first else swapped(y), *map(swapped, last)]


def _made_unique(b: Loader, x: Output, w: np.ndarray) -> tuple[Output, np.ndarray]:
    """x and its weights, with some channels of 0 more for each earlier layer of their shape.

    OpenVINO 2026.4 runs a second layer of the same shape with the scales of the first.
    """
    _, gates, width = w.shape
    extra = 0
    while (gates, width + extra) in b.layers:
        extra += ALIGNED
    b.layers.add((gates, width + extra))
    if not extra:
        return x, w
    wide = ov.pad(x, ints([0, 0, 0]), ints([0, 0, extra]), "constant", np.float32(0))
    return wide.output(0), np.pad(w, ((0, 0), (0, 0), (0, extra)))


def _unrounded(b: Loader, integers: Any) -> Any:
    """The floats that became integers, moved about as these: OpenVINO rounds them only once."""
    if (q := Quantize.of(b.module, integers)) is not None:
        return b.load(q.x)
    first = integers.args[0]
    parts = first if isinstance(first, list | tuple) else [first]
    values = [_unrounded(b, n) for n in parts]
    return b.call(integers, values if parts is first else values[0])


def bounds(qmin: int, qmax: int, scale: Tensor, zero_point: Tensor) -> list[float]:
    """The numbers that the least and the largest integer stand for."""
    return [float((end - zero_point.double()) * scale.double()) for end in (qmin, qmax)]


def _quantize_behind(module: fx.GraphModule, integers: Any) -> Quantize | None:
    """The quantize that made integers which may have been moved about since."""
    while (q := Quantize.of(module, integers)) is None and integers.all_input_nodes:
        integers = integers.all_input_nodes[0]
    return q


def _direction(
    module: fx.GraphModule,
    weights: Sequence[fx.Node],
    of_x: Sequence[Tensor],
    of_h: Sequence[Tensor],
    layer: fx.Node,
) -> tuple[np.ndarray, ...]:
    """Integers of both weights, the scale of the second, and the bias, in OpenVINO's order."""
    w, r = (Dequantize.of(module, n) for n in weights[:2])
    (x_scale, x_zero), (h_scale, h_zero) = of_x, of_h
    ratio = h_scale.double() / x_scale.double()
    if w is None or r is None or not (w.is_weight and r.is_weight):
        raise Unsupported("its weights are not int8", layer)
    input_gates, forget_gates, *_ = r.scale.chunk(4)
    is_one = torch.equal(input_gates, forget_gates)
    if not is_one or not torch.allclose(
        w.scale.double(), r.scale.double() * ratio, rtol=EXACT, atol=0
    ):
        raise Unsupported("the scales of its weights do not fit those of its values", layer)
    of_input, of_state = (attribute(module, d.q.target) for d in (w, r))
    shift = of_input.double().sum(1) * w.scale.double() * x_scale.double()
    bias = shift * (h_zero.double() - x_zero.double())
    for n in weights[2:]:
        bias += attribute(module, n.target).double()
    parts = (of_input, of_state, r.scale.float()[:, None], bias.float())
    return tuple(np.concatenate([t.chunk(4)[i].numpy() for i in LSTM.gates]) for t in parts)


def _fake_quantize(x: Output, given: Sequence[float], made: Sequence[float], levels: int) -> Output:
    ends = (ov.constant(np.float32(end)) for end in (*given, *made))
    return ov.fake_quantize(x, *ends, levels).output(0)


def _zero(x: Output) -> Output:
    """0 of shape (1, 1, 1), computed: OpenVINO would fold the rounding of a constant state."""
    some = ov.slice(x, ints([0, 0, 0]), ints([1, 1, 1]), ints([1, 1, 1]), ints([0, 1, 2]))
    return ov.clamp(some, 0.0, 0.0).output(0)
