"""Pooling, reductions and moved values of OpenVINO's table against PyTorch."""

import pytest
import torch
import torch.nn.functional as F

from engines.openvino.operator_cases import (
    assert_like_pytorch,
    assert_unsupported,
    flags,
    floats,
    pictures,
    some,
    whole,
)

OPERATORS = {
    "cumsum": (lambda x: x.cumsum(-1), floats),
    "cumsum of bools": (lambda x: x.cumsum(1), flags),
    "cumsum over the batch": (lambda x: x.cumsum(0, dtype=torch.float32), whole),
    "sum of bools": (lambda x: x.sum(-1), flags),
    "mean of ints": (lambda x: x.mean(1, dtype=torch.float32), whole),
    "amax": (lambda x: x.amax((1, 2), keepdim=True), floats),
    "amin": (lambda x: x.amin(-1), floats),
    "max of all": (lambda x: x.max(), floats),
    "max of two": (lambda x, y: torch.max(x, y), floats, floats),
    "max along": (lambda x: tuple(x.max(1)), some),
    "min along": (lambda x: tuple(x.min(-1, keepdim=True)), some),
    "argmax": (lambda x: x.argmax(-1), some),
    "argmin": (lambda x: x.argmin(1, keepdim=True), some),
    "argmax of ints": (lambda x: x.to(torch.int32).argmax(-1), whole),
    "norm": (lambda x: torch.linalg.vector_norm(x, dim=-1, keepdim=True), floats),
    "norm of order 1": (lambda x: torch.linalg.vector_norm(x, 1, (1, 2)), floats),
    "sizes": (lambda x: x.reshape(x.shape[0] * 2, -1) * (x.shape[0] // 2 - x.shape[0] % 2), floats),
    "swapaxes": (lambda x: x.swapaxes(0, -1), floats),
    "repeat": (lambda x: x.repeat(2, 1, x.shape[0]), floats),
    "sum of all": (lambda x: x.sum(), whole),
    "max_pool": (lambda x: F.max_pool2d(x, 3, 2, 1, ceil_mode=True), pictures),
    "max_pool dilated": (lambda x: F.max_pool1d(x, 2, dilation=2), floats),
    "avg_pool": (lambda x: F.avg_pool2d(x, (2, 3)), pictures),
    "avg_pool padded": (lambda x: F.avg_pool2d(x, 3, 2, 1, count_include_pad=False), pictures),
    "flatten": (lambda x: x.flatten(1, 2), pictures),
    "unflatten": (lambda x: x.unflatten(-1, (2, 3)), floats),
    "squeeze": (lambda x: x[:, :1].squeeze(1), floats),
    "expand": (lambda x: x[:, :1].expand(-1, 4, -1), floats),
    "slice": (lambda x: x[:, 1::2, -3:], floats),
    "select": (lambda x: x.select(1, -1), floats),
    "roll": (lambda x: x.roll((1, -2), (1, 2)), floats),
    "pixel_shuffle": (lambda x: F.pixel_shuffle(x, 2), pictures),
    "pixel_unshuffle": (lambda x: F.pixel_unshuffle(x, 2), pictures),
    "pad": (lambda x: F.pad(x, (1, 0, 2, 1), value=0.5), pictures),
    "pad by reflection": (lambda x: F.pad(x, (1, 2), mode="reflect"), floats),
    "pad by the edge": (lambda x: F.pad(x, (1, 2), mode="replicate"), floats),
}


@pytest.mark.parametrize("name", OPERATORS)
def test_operators_are_pytorchs(name, monkeypatch):
    assert_like_pytorch(monkeypatch, *OPERATORS[name])


@pytest.mark.parametrize(
    ("fn", "message"),
    [
        (lambda x: x.argmax(), "flattened"),
        (lambda x: torch.linalg.vector_norm(x, 3), "order 3"),
        (lambda x: x.roll(1), "roll of the flattened"),
        (lambda x: F.pad(x, (1, 1), mode="circular"), "no entry|circular"),
        (lambda x: F.avg_pool2d(x, 2, divisor_override=3), "divisor_override"),
    ],
)
def test_forms_that_are_not_known_say_so(fn, message):
    assert_unsupported(fn, message)
