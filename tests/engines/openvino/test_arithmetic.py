"""Arithmetic of OpenVINO's table against PyTorch."""

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
    "to int": (lambda x: x.to(torch.int64), floats),
    "to bool": (lambda x: (x / 9).to(torch.bool), some),
    "to float of int": (lambda x: x.float() / 7, whole),
    "to float of bool": (lambda x: x.to(torch.float32), flags),
    "to double": (lambda x: x.to("cpu", torch.float64), floats),
    "type_as": (lambda x, y: x.type_as(y), floats, whole),
    "to other": (lambda x, y: x.to(y), whole, floats),
    "to itself": (lambda x: x.to(torch.float32) + 1, floats),
    "_to_copy": (lambda x: torch.ops.aten._to_copy(x, dtype=torch.int32), floats),
    "eq number": (lambda x: x == 1, some),
    "eq infinity": (lambda x: (x / (x - 1)) == torch.inf, some),
    "ne": (lambda x, y: x != y, some, whole),
    "lt": (lambda x, y: x < y, floats, whole),
    "le": (lambda x: x <= 0.5, whole),
    "gt": (lambda x, y: x > y, whole, whole),
    "ge": (lambda x: x >= x.shape[0], floats),
    "logical_not": (lambda x: torch.logical_not(x), some),
    "logical_and": (lambda x, y: torch.logical_and(x, y), flags, some),
    "logical_or": (lambda x, y: torch.logical_or(x, y), flags, flags),
    "logical_xor": (lambda x, y: torch.logical_xor(x, y), flags, flags),
    "and": (lambda x, y: x & y, flags, flags),
    "or": (lambda x, y: x | y, flags, flags),
    "xor": (lambda x, y: x ^ y, flags, flags),
    "not": (lambda x: ~x, flags),
    "and of ints": (lambda x: x & 5, whole),
    "not of ints": (lambda x: ~x, whole),
    "rsqrt": (lambda x: torch.rsqrt(x.abs() + 1), floats),
    "remainder": (lambda x: x % 4, whole),
    "remainder of floats": (lambda x: x % -1.5, floats),
    "floor division": (lambda x: x // 4, whole),
    "floor division of floats": (lambda x: torch.div(x, 0.7, rounding_mode="floor"), floats),
    "floor division by tenths": (lambda x: torch.full_like(x, 1) // 0.1, floats),
    "remainder of tenths": (lambda x: (x * 0 + 2.1) % 0.7, floats),
    "clip of ints to a float": (lambda x: x.clamp(0.5), whole),
    "clip of infinities": (lambda x: (x / 0).clamp(0), floats),
    "functions of ints": (lambda x: x.exp() + x.sin() + (x * x + 1).rsqrt(), whole),
    "division of ints": (lambda x: x / 4, whole),
    "ints and floats": (lambda x, y: (x + y) * x - 0.5, whole, floats),
    "int to a float power": (lambda x: x.abs() ** 0.5, whole),
    "ceil": (lambda x: x.ceil(), floats),
    "identities": (lambda x: x.detach().contiguous().clone() + 1, floats),
    "softmax in a type": (lambda x: F.softmax(x, -1, dtype=torch.float32), floats),
    "rsub": (lambda x: 2 - x, floats),
    "add of a multiple": (lambda x, y: torch.add(x, y, alpha=3), floats, whole),
    "sub of a multiple": (lambda x, y: torch.sub(x, y, alpha=0.5), floats, floats),
    "reciprocal": (lambda x: 1 / (x.abs() + 1), floats),
    "activations": (lambda x: F.elu(x) + F.mish(x) + F.softplus(x) + F.gelu(x), floats),
    "clips": (lambda x: x.clamp(-1) + x.clamp(max=2) + x.clamp(-1, 1) + F.hardtanh(x), floats),
    "clip by tensors": (lambda x, y: torch.clamp(x, y, y + 1), floats, floats),
    "leaky_relu": (lambda x: F.leaky_relu(x, 0.2), floats),
    "layer_norm of three dimensions": (lambda x: F.layer_norm(x, (6,)), floats),
    "layer_norm of four": (lambda x: F.layer_norm(x, (8,)), pictures),
    "matmul": (lambda x, y: x @ y.transpose(1, 2), floats, floats),
}


@pytest.mark.parametrize("name", OPERATORS)
def test_operators_are_pytorchs(name, monkeypatch):
    assert_like_pytorch(monkeypatch, *OPERATORS[name])


@pytest.mark.parametrize(
    ("fn", "message"),
    [
        (lambda x: x.to(torch.float16), "conversion to torch.float16"),
        (lambda x: torch.div(x, 2, rounding_mode="trunc"), "rounded by trunc"),
        (lambda x: x.to(torch.int32) < 2**40, "too large|out of bounds"),
        (lambda x: F.softplus(x, threshold=9), "softplus with a low threshold"),
        (lambda x: x.to(torch.uint8), "which PyTorch wraps around"),
        (lambda x: F.group_norm(x, 2), "group norm without weight"),
    ],
)
def test_forms_that_are_not_known_say_so(fn, message):
    assert_unsupported(fn, message)
