"""Every operator of OpenVINO's table against PyTorch, at a batch size other than the captured."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from octavo.capture.export import capture
from octavo.engines.openvino.build import Builder
from octavo.engines.openvino.engine import CompiledModel, compile_graph
from octavo.engines.openvino.ops import Unsupported
from octavo.passes import tidy


class Lambda(nn.Module):
    def __init__(self, fn):
        super().__init__()
        self.fn = fn

    def forward(self, *args):
        return self.fn(*args)


def floats(n):
    return torch.randn(n, 4, 6) * 3


def whole(n):
    return torch.randint(-9, 9, (n, 4, 6))


def flags(n):
    return torch.rand(n, 4, 6) > 0.5


def positions(n):
    return torch.randint(0, 6, (n, 4, 3))


def some(n):  # with equal values
    return torch.randint(0, 3, (n, 4, 6)).float()


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
    "eq number": (lambda x: x == 1, some),
    "eq infinity": (lambda x: (x / (x - 1)) == torch.inf, some),
    "ne": (lambda x, y: x != y, some, whole),
    "lt": (lambda x, y: x < y, floats, whole),
    "le": (lambda x: x <= 0.5, whole),
    "gt": (lambda x, y: x > y, whole, whole),
    "ge": (lambda x: x >= x.shape[0], floats),
    "where": (lambda c, x, y: torch.where(c, x, y), flags, floats, whole),
    "where numbers": (lambda c, x: torch.where(c, x, -1e9), flags, floats),
    "where both numbers": (lambda c: torch.where(c, 1.0, 0.0), flags),
    "masked_fill": (lambda x, c: x.masked_fill(c, -torch.inf), floats, flags),
    "masked_fill by a tensor": (lambda x, c: x.masked_fill(c, x.sum()), floats, flags),
    "masked_fill ints": (lambda x, c: x.masked_fill(c[:, :1], 7), whole, flags),
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
    "cumsum": (lambda x: x.cumsum(-1), floats),
    "cumsum of bools": (lambda x: x.cumsum(1), flags),
    "cumsum over the batch": (lambda x: x.cumsum(0, dtype=torch.float32), whole),
    "sum of bools": (lambda x: x.sum(-1), flags),
    "mean of ints": (lambda x: x.mean(1, dtype=torch.float32), whole),
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
    "rsqrt": (lambda x: torch.rsqrt(x.abs() + 1), floats),
    "remainder": (lambda x: x % 4, whole),
    "remainder of floats": (lambda x: x % -1.5, floats),
    "floor division": (lambda x: x // 4, whole),
    "floor division of floats": (lambda x: torch.div(x, 0.7, rounding_mode="floor"), floats),
    "division of ints": (lambda x: x / 4, whole),
    "ints and floats": (lambda x, y: (x + y) * x - 0.5, whole, floats),
    "int to a float power": (lambda x: x.abs() ** 0.5, whole),
    "ceil": (lambda x: x.ceil(), floats),
    "sizes": (lambda x: x.reshape(x.shape[0] * 2, -1) * (x.shape[0] // 2 - x.shape[0] % 2), floats),
    "swapaxes": (lambda x: x.swapaxes(0, -1), floats),
    "repeat": (lambda x: x.repeat(2, 1, x.shape[0]), floats),
    "identities": (lambda x: x.detach().contiguous().clone() + 1, floats),
    "softmax in a type": (lambda x: F.softmax(x, -1, dtype=torch.float32), floats),
}


def build(fn, *args):
    graph, signature = capture(Lambda(fn).eval(), args)
    return tidy(graph), signature


@pytest.mark.parametrize("name", OPERATORS)
def test_operators_are_pytorchs(name, monkeypatch):
    monkeypatch.setattr(CompiledModel, "shapes", 1)
    fn, *inputs = OPERATORS[name]
    graph, signature = build(fn, *(make(3) for make in inputs))
    Builder(graph, signature).build()  # raises Unsupported where the frontend would be needed
    fast = compile_graph(graph, signature)
    for batch in (5, 2):  # compiled for its shape, and for any
        args = [make(batch) for make in inputs]
        torch.testing.assert_close(fast(*args), fn(*args))


@pytest.mark.parametrize(
    ("fn", "message"),
    [
        (lambda x: x.to(torch.float16), "conversion to torch.float16"),
        (lambda x: torch.div(x, 2, rounding_mode="trunc"), "rounded by trunc"),
        (lambda x: x.argmax(), "flattened"),
        (lambda x: torch.linalg.vector_norm(x, 3), "order 3"),
        (lambda x: x.gather(2, torch.zeros(2, 3, 4, dtype=torch.int64)), "part of a tensor"),
        (lambda x: x[:, torch.arange(2) * x.shape[0], torch.arange(2)], "after a slice"),
        (lambda x: x[x[:, 0, 0] > 0], "a mask as index"),
        (lambda x: x.to(torch.int32) < 2**40, "too large|out of bounds"),
        (lambda x: torch.topk(x, 2)[0], "no entry"),
    ],
)
def test_forms_that_are_not_known_say_so(fn, message):
    with pytest.raises(Unsupported, match=message):
        Builder(*build(fn, floats(3))).build()
