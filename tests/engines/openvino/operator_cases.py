"""What the tests of the table's entries share: inputs, and the comparison with PyTorch."""

import pytest
import torch
from torch import nn

from octavo.capture.export import capture
from octavo.engines.base import compile_graph
from octavo.engines.openvino.build import Builder
from octavo.engines.openvino.compiled import CompiledModel
from octavo.engines.openvino.table import Unsupported
from octavo.passes import run_passes


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


def pictures(n):
    return torch.randn(n, 4, 6, 8)


def built(fn, *args):
    return Builder(*run_passes(capture(Lambda(fn).eval(), args))).build()


def assert_like_pytorch(monkeypatch, fn, *inputs):
    """At batch sizes other than the captured: compiled for its shape, and for any."""
    monkeypatch.setattr(CompiledModel, "shapes", 1)
    graph, signature = run_passes(capture(Lambda(fn).eval(), tuple(make(3) for make in inputs)))
    Builder(graph, signature).build()  # raises Unsupported where the frontend would be needed
    fast = compile_graph(graph, signature)
    for batch in (5, 2):
        args = [make(batch) for make in inputs]
        torch.testing.assert_close(fast(*args), fn(*args))


def assert_unsupported(fn, message, make=floats):
    with pytest.raises(Unsupported, match=message):
        built(fn, make(3))
