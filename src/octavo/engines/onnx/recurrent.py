"""Recurrent layers for ONNX: PyTorch traces them step by step, which would fix their length."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ...errors import FormatError
from ..recurrent import Layers

aten = torch.ops.aten

# One layer, in both directions at once: the operator of ONNX, with its layout and order of gates.
# x: (time, batch, features); w, r, b: (directions, ...); h, c: (directions, batch, size).
_lib = torch.library.Library("octavo_onnx", "DEF")
_lib.define(
    "recurrent(Tensor x, Tensor w, Tensor r, Tensor b, Tensor h, Tensor c, str kind, int size)"
    " -> (Tensor, Tensor, Tensor)"
)


def _shapes(x: Tensor, w: Tensor, r: Tensor, b: Tensor, h: Tensor, c: Tensor, *_: Any) -> Any:
    outputs = x.new_empty(x.shape[0], h.shape[0], x.shape[1], h.shape[2])
    return outputs, torch.empty_like(h), torch.empty_like(c)


torch.library.register_fake("octavo_onnx::recurrent", _shapes, lib=_lib)
recurrent = torch.ops.octavo_onnx.recurrent.default


@dataclass(frozen=True)
class Kind:
    """gates: for each gate of ONNX, its place among PyTorch's. activation: of a plain RNN."""

    gates: tuple[int, ...]
    activation: str = ""


KINDS = {
    "lstm": Kind((0, 3, 1, 2)),  # input, output, forget, cell of input, forget, cell, output
    "gru": Kind((1, 0, 2)),  # update, reset, new of reset, update, new
    "rnn_tanh": Kind((0,), "Tanh"),
    "rnn_relu": Kind((0,), "Relu"),
}


def layers(kind: str) -> Callable[..., tuple[Tensor, ...]]:
    """A function with the arguments and outputs of `aten.<kind>.input`, in evaluation."""

    def run(*args: Any) -> tuple[Tensor, ...]:
        call = Layers(*args)
        x, weights, states = call.x, call.weights, call.states
        hidden, cell = states if kind == "lstm" else (states, states)
        if hidden.shape[-1] != cell.shape[-1]:
            raise FormatError("ONNX has no LSTM with proj_size; use compile('openvino')")
        x = x.transpose(0, 1) if call.batch_first else x
        ends = []
        for i in range(call.num_layers):
            own, group = call.of(i)
            w, r, b = _as_onnx(KINDS[kind], group, call.has_biases)
            size = weights[1].shape[1]
            y, *end = recurrent(x, w, r, b, hidden[own], cell[own], kind, size)
            x = y.transpose(1, 2).flatten(2)
            ends.append(end if kind == "lstm" else end[:1])
        x = x.transpose(0, 1) if call.batch_first else x
        return x, *(torch.cat(state) for state in zip(*ends, strict=True))

    return run


def _as_onnx(
    kind: Kind, group: Sequence[Sequence[Tensor]], has_biases: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Weights of the inputs and of the state, and biases, of both directions, as ONNX has them."""

    def sorted_gates(t: Tensor) -> Tensor:
        gates = t.chunk(len(kind.gates))
        return torch.cat([gates[i] for i in kind.gates])

    def stacked(tensors: list[Tensor]) -> Tensor:
        return torch.stack([sorted_gates(t) for t in tensors])

    w, r = stacked([g[0] for g in group]), stacked([g[1] for g in group])
    if not has_biases:
        return w, r, w.new_zeros(len(group), 2 * w.shape[1])
    return w, r, torch.cat([stacked([g[2] for g in group]), stacked([g[3] for g in group])], 1)
