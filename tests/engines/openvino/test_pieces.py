"""Tensors put together and taken apart by OpenVINO's table, against PyTorch."""

import pytest
import torch

from engines.openvino.operator_cases import assert_like_pytorch, assert_unsupported, floats, whole

OPERATORS = {
    "stack": (lambda x, y: torch.stack([x, y], 1), floats, floats),
    "split": (lambda x: x.split(4, -1), floats),
    "split with sizes": (lambda x: x.split([1, 2, 3], -1), floats),
    "chunk": (lambda x: x.chunk(3, 1), floats),
    "unbind": (lambda x: x.unbind(1), floats),
    "cat of types": (lambda x, y: torch.cat([x, y]), floats, whole),
    "chunk of the batch": (lambda x: x.chunk(2), floats),
    "tensor_split of the batch": (lambda x: x.tensor_split(4), floats),
    "diff of the batch": (lambda x: x.diff(dim=0), floats),
    "kthvalue": (lambda x: x.kthvalue(3, 1)[0], floats),
}


@pytest.mark.parametrize("name", OPERATORS)
def test_operators_are_pytorchs(name, monkeypatch):
    assert_like_pytorch(monkeypatch, *OPERATORS[name])


@pytest.mark.parametrize(
    ("fn", "message"),
    [
        (lambda x: x.split(1, 0)[0], "size of dimension 0 is not known"),
        (lambda x: (x > 0).diff(), "differences of booleans"),
    ],
)
def test_forms_that_are_not_known_say_so(fn, message):
    assert_unsupported(fn, message)
