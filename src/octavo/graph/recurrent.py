"""`octavo::rounded_lstm`: one layer of an LSTM as integer kernels compute it.

The state h is rounded to integers of one scale and zero_point before the first step and after
every other: the kernels multiply these integers with int8 weights. The cell state c stays float.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, fx

from .operators import is_operator
from .ops import dequantize, quantize

Rounding = Callable[[Tensor], Tensor]

_lib = torch.library.Library("octavo", "FRAGMENT")
_lib.define(
    "rounded_lstm(Tensor x, Tensor[] states, Tensor[] weights, bool has_biases, "
    "bool bidirectional, bool batch_first, Tensor scale, Tensor zero_point, int qmin, int qmax)"
    " -> (Tensor, Tensor, Tensor)"
)


def _rounded_lstm(
    x: Tensor,
    states: Sequence[Tensor],
    weights: Sequence[Tensor],
    has_biases: bool,
    bidirectional: bool,
    batch_first: bool,
    *integers: Any,
) -> tuple[Tensor, Tensor, Tensor]:
    def rounded(h: Tensor) -> Tensor:
        dtype = torch.int8 if integers[2] < 0 else torch.uint8
        on_grid: Tensor = dequantize(quantize(h, *integers, dtype), *integers[:2])
        return on_grid

    each = 4 if has_biases else 2
    x = x.transpose(0, 1) if batch_first else x
    runs = [
        _direction(x, h, c, weights[each * d : each * (d + 1)], rounded, backward=d == 1)
        for d, (h, c) in enumerate(zip(*states, strict=True))
    ]
    outputs, h, c = zip(*runs, strict=True)
    y = torch.cat(outputs, -1)
    return (y.transpose(0, 1) if batch_first else y).contiguous(), torch.stack(h), torch.stack(c)


def _direction(
    x: Tensor,
    h: Tensor,
    c: Tensor,
    weights: Sequence[Tensor],
    rounded: Rounding,
    backward: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """The outputs of one direction, (time, batch, size), and its last states."""
    of_input, of_state, *biases = weights
    bias = biases[0] + biases[1] if biases else None
    steps = F.linear(x, of_input, bias).unbind(0)
    h, outputs = rounded(h), []
    for step in reversed(steps) if backward else steps:
        i, f, g, o = (step + F.linear(h, of_state)).chunk(4, -1)
        c = f.sigmoid() * c + i.sigmoid() * g.tanh()
        h = rounded(o.sigmoid() * c.tanh())
        outputs.append(h)
    return torch.stack(outputs[::-1] if backward else outputs), h, c


def _shapes(x: Tensor, states: Sequence[Tensor], *_: Any) -> tuple[Tensor, Tensor, Tensor]:
    h, c = states
    return (
        x.new_empty(*x.shape[:2], h.shape[0] * h.shape[2]),
        h.new_empty(h.shape),
        torch.empty_like(c),
    )


_lib.impl("rounded_lstm", _rounded_lstm, "CompositeExplicitAutograd")
torch.library.register_fake("octavo::rounded_lstm", _shapes, lib=_lib)

rounded_lstm = torch.ops.octavo.rounded_lstm.default


def is_made(state: fx.Node) -> bool:
    """Whether a first state depends on nothing but sizes: the zeros of nn.LSTM."""
    if state.op == "placeholder":
        return False
    sizes = is_operator(state, "sym_size", "zeros_like", "new_zeros")
    return sizes or all(map(is_made, state.all_input_nodes))


def as_float_layer(arguments: Sequence[Any]) -> tuple[Any, ...]:
    """The arguments of `aten.lstm.input` for the same layer without rounding h."""
    x, states, weights, has_biases, bidirectional, batch_first = arguments[:6]
    return x, states, weights, has_biases, 1, 0.0, False, bidirectional, batch_first
