"""Multiply-adds of the operators that dominate a network's work."""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, fx

aten = torch.ops.aten


def _conv(out: Tensor, weight: Tensor) -> int:
    return out.numel() * math.prod(weight.shape[1:])


def _conv_transpose(x: Tensor, weight: Tensor) -> int:
    return x.numel() * math.prod(weight.shape[1:])


def _recurrent(x: Tensor, weights: list[Tensor]) -> int:
    """Every step multiplies with every weight: x is (time, batch, features) in either order."""
    return x.shape[:-1].numel() * sum(w.numel() for w in weights if w.dim() == 2)


# operator -> multiply-adds from (output, inputs)
WORK: dict[Any, Callable[[Tensor, list[Tensor]], int]] = {
    aten.conv1d: lambda out, i: _conv(out, i[1]),
    aten.conv2d: lambda out, i: _conv(out, i[1]),
    aten.conv3d: lambda out, i: _conv(out, i[1]),
    aten.conv_transpose1d: lambda out, i: _conv_transpose(i[0], i[1]),
    aten.conv_transpose2d: lambda out, i: _conv_transpose(i[0], i[1]),
    aten.conv_transpose3d: lambda out, i: _conv_transpose(i[0], i[1]),
    aten.linear: lambda out, i: out.numel() * i[1].shape[-1],
    aten.matmul: lambda out, i: out.numel() * i[0].shape[-1],
    aten.bmm: lambda out, i: out.numel() * i[0].shape[-1],
    aten.baddbmm: lambda out, i: out.numel() * i[1].shape[-1],
    aten.addmm: lambda out, i: out.numel() * i[1].shape[-1],
    aten.lstm: lambda out, i: _recurrent(i[0], i[3:]),
    aten.gru: lambda out, i: _recurrent(i[0], i[2:]),
    aten.rnn_tanh: lambda out, i: _recurrent(i[0], i[2:]),
    aten.rnn_relu: lambda out, i: _recurrent(i[0], i[2:]),
}


def multiply_adds(node: fx.Node, output: Any, inputs: list[Any]) -> int:
    """Multiply-adds of one run of an ATen node; 0 for operators without a matrix product."""
    count = WORK.get(getattr(node.target, "overloadpacket", None))
    return count(output, inputs) if count else 0
