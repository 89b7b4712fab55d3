"""Masks and indices of OpenVINO's table against PyTorch."""

import pytest
import torch

from engines.openvino.operator_cases import (
    assert_like_pytorch,
    assert_unsupported,
    flags,
    floats,
    positions,
    whole,
)

OPERATORS = {
    "zeros": (lambda x: torch.zeros(x.shape[0], 3), floats),
    "ones": (lambda x: torch.ones(2, x.shape[0], dtype=torch.bool), floats),
    "full": (lambda x: torch.full((x.shape[0], 2), -torch.inf), floats),
    "full of a size": (lambda x: torch.full((2, 2), x.shape[0]), floats),
    "full of booleans": (lambda x: torch.full((x.shape[0],), True), floats),
    "zeros_like": (lambda x: torch.zeros_like(x, dtype=torch.int64), floats),
    "ones_like": (lambda x: torch.ones_like(x), flags),
    "full_like": (lambda x: torch.full_like(x, 3), whole),
    "new_zeros": (lambda x: x.new_zeros((x.shape[0], 2)), whole),
    "new_ones": (lambda x: x.new_ones((x.shape[0], 2), dtype=torch.bool), floats),
    "new_full": (lambda x: x.new_full((2, x.shape[0]), 0.5), floats),
    "scalar_tensor": (lambda x: x + torch.scalar_tensor(x.shape[0]), floats),
    "arange": (lambda x: torch.arange(x.shape[0]), floats),
    "arange from": (lambda x: torch.arange(2, x.shape[0] + 2), floats),
    "arange in steps": (lambda x: torch.arange(0, x.shape[0] * 2, 3), floats),
    "arange of floats": (lambda x: torch.arange(x.shape[0], dtype=torch.float32), floats),
    "where": (lambda c, x, y: torch.where(c, x, y), flags, floats, whole),
    "where numbers": (lambda c, x: torch.where(c, x, -1e9), flags, floats),
    "where both numbers": (lambda c: torch.where(c, 1.0, 0.0), flags),
    "masked_fill": (lambda x, c: x.masked_fill(c, -torch.inf), floats, flags),
    "masked_fill by a tensor": (lambda x, c: x.masked_fill(c, x.sum()), floats, flags),
    "masked_fill ints": (lambda x, c: x.masked_fill(c[:, :1], 7), whole, flags),
    "index_select": (lambda x, i: x.index_select(1, i[0, :, 0] % 4), floats, positions),
    "gather": (lambda x, i: x.gather(2, i), floats, positions),
    "index": (lambda x, i: x[:, :, i[0, 0]], floats, positions),
    "index from the end": (lambda x, i: x[:, -1 - i[0] % 4], floats, positions),
    "index of each": (lambda x: x[torch.arange(x.shape[0]), x.argmax(1)[:, 0]], floats),
    "indices that broadcast": (
        lambda x, i: x[torch.arange(x.shape[0])[:, None], i[0, 0][None] - 4],
        floats,
        positions,
    ),
    "triu": (lambda x: x.triu(1), floats),
    "tril": (lambda x: x.tril(), floats),
    "tril of a square": (lambda x: torch.ones(x.shape[0], x.shape[0]).tril(-1), floats),
}


@pytest.mark.parametrize("name", OPERATORS)
def test_operators_are_pytorchs(name, monkeypatch):
    assert_like_pytorch(monkeypatch, *OPERATORS[name])


@pytest.mark.parametrize(
    ("fn", "message"),
    [
        (lambda x: x[:, torch.arange(2) * x.shape[0], torch.arange(2)], "after a slice"),
        (lambda x: x[x[:, 0, 0] > 0], "a mask as index"),
    ],
)
def test_forms_that_are_not_known_say_so(fn, message):
    assert_unsupported(fn, message)
