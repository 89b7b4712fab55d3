"""Dynamic linear layers in PyTorch: an integer product for each group of channels."""

from __future__ import annotations

import torch
from torch import Tensor

from ...graph import ops


def dynamic_linear(
    x: Tensor, weight: Tensor, scales: Tensor, bias: Tensor | None, group_size: int
) -> Tensor:
    """A linear layer on inputs rounded as `octavo::quantize_groups` rounds them.

    x: (..., channels) float32; weight: (outputs, channels) int8, with a scale each output.
    """
    rows = x.reshape(-1, x.shape[-1])
    total = x.new_zeros(len(rows), len(weight))
    for values, integers in zip(
        rows.split(group_size, 1), weight.split(group_size, 1), strict=True
    ):
        size = values.shape[1]
        scale = ops.find_dynamic_scale(values, size)
        q = ops.round_groups(values, scale, size).to(torch.int8)
        total.addcmul_(_product(q, integers), scale)
    total.mul_(scales)
    total = total if bias is None else total.add_(bias)
    return total.view(*x.shape[:-1], len(weight))


def _product(a: Tensor, b: Tensor) -> Tensor:
    """a @ b.T of int8 tensors, as float32."""
    if a.shape[1] == 1:  # for which torch._int_mm returns memory as it found it, in torch 2.14
        return a.float() * b.float().t()
    return torch._int_mm(a, b.t()).float()
