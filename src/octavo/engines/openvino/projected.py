"""Layers of nn.LSTM with `proj_size` for OpenVINO, whose LSTM does not project its state."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import openvino
import openvino.opset15 as ov
from openvino import Output

from .values import ints


def projected_layer(
    x: Output, states: Sequence[Output], groups: Sequence[Sequence[Output]]
) -> list[Output]:
    """One layer: x of (batch, length, features), states of (directions, batch, size).

    groups: the weights of each direction. Returns the outputs, (batch, length, all directions'),
    and the last states.
    """
    runs = []
    for d, weights in enumerate(groups):
        h, c = (ov.gather(s, ints([d]), ints([0])) for s in states)
        runs.append(_direction(x, ov.squeeze(h, ints([0])), ov.squeeze(c, ints([0])), weights, d))
    outputs, *last = zip(*runs, strict=True)
    stacked = ([ov.unsqueeze(s, ints([0])) for s in both] for both in last)
    return [
        ov.concat(list(outputs), 2).output(0),
        *(ov.concat(states, 0).output(0) for states in stacked),
    ]


def _direction(x: Output, h: Any, c: Any, weights: Sequence[Output], backward: int) -> list[Output]:
    """A loop over the steps, the last first if `backward`."""
    of_input, of_state, *biases, projection = weights
    gates = ov.matmul(x, of_input, False, True)
    for bias in biases:
        gates = ov.add(gates, bias)
    width = of_input.get_partial_shape()[0].get_length()
    sizes = [
        [-1, 1, width],
        *([-1, s.output(0).get_partial_shape()[1].get_length()] for s in (h, c)),
    ]
    step, *before = (ov.parameter(size, np.float32) for size in sizes)
    loop = ov.tensor_iterator()
    body = _step(step, before, of_state, projection)
    results = [ov.result(value) for value in body]
    loop.set_body(openvino.Model(results, [step, *before], "step"))
    ends = (-1, -1, 1, 0) if backward else (0, 1, 1, -1)
    loop.set_sliced_input(step, gates.output(0), *ends, 1)
    for parameter, start, result in zip(before, (h, c), results, strict=False):
        loop.set_merged_input(parameter, start.output(0), result.output(0))
    outputs = loop.get_concatenated_slices(results[2].output(0), *ends, 1)
    return [outputs, *(loop.get_iter_value(r.output(0), -1) for r in results[:2])]


def _step(gates: Any, before: Sequence[Any], of_state: Output, projection: Output) -> list[Any]:
    """The next h and c, and h as the output of this step."""
    h, c = before
    recurrent = ov.matmul(h, of_state, False, True)
    total = ov.add(ov.squeeze(gates, ints([1])), recurrent)
    i, f, g, o = ov.split(total, ov.constant(np.int64(1)), 4).outputs()
    c = ov.add(ov.multiply(ov.sigmoid(f), c), ov.multiply(ov.sigmoid(i), ov.tanh(g)))
    h = ov.matmul(ov.multiply(ov.sigmoid(o), ov.tanh(c)), projection, False, True)
    return [h, c, ov.unsqueeze(h, ints([1]))]
