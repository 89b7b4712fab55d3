"""The table's entries for recurrent layers: OpenVINO's sequences and cells, one for each layer.

PyTorch and OpenVINO order the gates differently, and OpenVINO adds the two biases of a gate up,
except in a GRU's new state, where the reset gate is applied between them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import openvino.opset15 as ov
from openvino import Output

from ..recurrent import Layers
from .projected import projected_layer
from .table import Unsupported, lowers
from .values import ints


@dataclass(frozen=True)
class Kind:
    """sequence, cell: OpenVINO's operators. gates: for each of its gates, the place of PyTorch's.

    settings: of both operators.
    """

    sequence: Callable[..., Any]
    cell: Callable[..., Any]
    gates: tuple[int, ...]
    settings: dict[str, Any]

    def parts(self, weights: Sequence[Output]) -> tuple[Output, Output, Output]:
        """Weights of the inputs and of the state, and the biases, as OpenVINO has them."""
        w, r, *biases = (self._sorted(t) for t in weights)
        if not biases:
            rows = w.get_partial_shape()[0].get_length()
            biases = [ov.constant(np.zeros(rows, np.float32)).output(0)] * 2
        b = ov.add(*biases).output(0)
        if self.settings.get("linear_before_reset"):
            size = r.get_partial_shape()[1].get_length()
            gates, new = _rows(b, 0, 2 * size), [_rows(t, 2 * size, 3 * size) for t in biases]
            b = ov.concat([gates, *new], 0).output(0)
        return w, r, b

    def _sorted(self, t: Output) -> Output:
        rows = t.get_partial_shape()[0].get_length()
        order = np.arange(rows).reshape(len(self.gates), -1)[list(self.gates)].ravel()
        return ov.gather(t, ints(order.tolist()), ints([0])).output(0)


KINDS = {
    "lstm": Kind(ov.lstm_sequence, ov.lstm_cell, (1, 0, 2, 3), {}),  # forget, input, cell, output
    "gru": Kind(ov.gru_sequence, ov.gru_cell, (1, 0, 2), {"linear_before_reset": True}),
    "rnn_tanh": Kind(ov.rnn_sequence, ov.rnn_cell, (0,), {"activations": ["tanh"]}),
    "rnn_relu": Kind(ov.rnn_sequence, ov.rnn_cell, (0,), {"activations": ["relu"]}),
}


def _layers(kind: str, *args: Any) -> list[Output]:
    """All layers of nn.LSTM, GRU or RNN: the outputs, and the last state (two of an LSTM)."""
    call = Layers(*args)
    if not isinstance(call.has_biases, bool):
        raise Unsupported("packed sequences")
    first = list(call.states) if kind == "lstm" else [call.states]
    is_projected = call.each != (4 if call.has_biases else 2)
    x = call.x if call.batch_first else swapped(call.x)
    ends: list[list[Output]] = []
    for layer in range(call.num_layers):
        own, group = call.of(layer)
        if is_projected:
            states = [_rows(s, own.start, own.stop) for s in first]
            x, *last = projected_layer(x, states, group)
            ends.append(last)
            continue
        parts = [KINDS[kind].parts(weights) for weights in group]
        starts = [swapped(_rows(s, own.start, own.stop)) for s in first]
        y, *last = _layer(KINDS[kind], x, starts, parts)
        x = joined(y)
        ends.append([swapped(state) for state in last])
    outputs = x if call.batch_first else swapped(x)
    return [outputs, *(ov.concat(list(s), 0).output(0) for s in zip(*ends, strict=True))]


def _layer(
    kind: Kind,
    x: Output,
    states: Sequence[Output],
    parts: Sequence[tuple[Output, Output, Output]],
) -> list[Output]:
    """One layer, x of (batch, length, features) and states of (batch, directions, size)."""
    weights = (
        ov.concat([ov.unsqueeze(t, ints([0])) for t in directions], 0)
        for directions in zip(*parts, strict=True)
    )
    return sequence(kind, x, states, tuple(weights), len(parts) > 1)


def sequence(
    kind: Kind, x: Output, states: Sequence[Output], weights: Sequence[Any], bidirectional: bool
) -> list[Output]:
    """One layer; weights: w, r and b of (directions, gates, ...), in OpenVINO's order of gates."""
    sizes = ov.shape_of(x, "i64")
    batch, length = (ov.gather(sizes, ints([i]), ints([0])) for i in (0, 1))
    lengths = ov.broadcast(length, batch)
    size = states[0].get_partial_shape()[2].get_length()
    direction = "bidirectional" if bidirectional else "forward"
    made = kind.sequence(x, *states, lengths, *weights, size, direction, **kind.settings)
    return [made.output(i) for i in range(1 + len(states))]


def _cell(
    kind: str,
    x: Output,
    states: Any,
    w: Output,
    r: Output,
    b: Output | None = None,
    state_b: Output | None = None,
) -> Any:
    """nn.LSTMCell, GRUCell or RNNCell: the next state, two of an LSTM."""
    found, biases = KINDS[kind], [t for t in (b, state_b) if t is not None]
    parts = found.parts([w, r, *biases])
    before = list(states) if kind == "lstm" else [states]
    size = before[0].get_partial_shape()[1].get_length()
    settings = found.settings
    if "activations" in settings:
        settings = settings | {"activations_alpha": [], "activations_beta": []}
    made = found.cell(x, *before, *parts, size, **settings)
    return [made.output(i) for i in range(2)] if kind == "lstm" else made


def joined(y: Output) -> Output:
    """(batch, directions, length, size) -> (batch, length, directions * size)."""
    return ov.reshape(ov.transpose(y, ints([0, 2, 1, 3])), ints([0, 0, -1]), True).output(0)


def swapped(x: Output) -> Output:
    """The first two of three dimensions, swapped."""
    return ov.transpose(x, ints([1, 0, 2])).output(0)


def _rows(x: Output, start: int, stop: int) -> Output:
    return ov.slice(x, ints([start]), ints([stop]), ints([1]), ints([0])).output(0)


for _kind in KINDS:
    lowers(_kind)(partial(_layers, _kind))
    lowers(f"{_kind}_cell")(partial(_cell, _kind))
