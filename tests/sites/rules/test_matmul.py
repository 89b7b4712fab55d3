import pytest
import torch
from torch import nn

import octavo
from octavo.graph.names import operator_name
from stages import quantize, rows


def test_attention_s_products_are_int8_without_zero_points():
    class Attention(nn.Module):
        def __init__(self):
            super().__init__()
            self.q, self.k, self.v = (nn.Linear(16, 16) for _ in range(3))

        def forward(self, x):
            a = (self.q(x) @ self.k(x).transpose(1, 2)).softmax(-1)
            return torch.bmm(a, self.v(x))

    net, x = Attention(), torch.randn(4, 10, 16)
    q = quantize(net, x)
    for name in ("matmul", "bmm"):
        assert rows(q)[name].precision == "int8"
        node = next(n for n in q.graph.nodes if operator_name(n) == name)
        for operand in node.args[:2]:
            zero_point = operand.args[2]
            assert dict(q.graph_module.named_buffers())[zero_point.target] == 0
    assert octavo.sqnr(net(x), q(x)) > 28
    assert octavo.sqnr(q(x), q.compile()(x)) > 35


def test_a_product_with_a_constant_is_a_linear_layer():
    class Product(nn.Module):
        def __init__(self):
            super().__init__()
            self.w = nn.Parameter(torch.randn(8, 6) * torch.logspace(-2, 2, 6))

        def forward(self, x):
            return x @ self.w

    net, x = Product(), torch.randn(16, 8)
    q = quantize(net, x)
    assert dict(q.graph_module.named_buffers())["w_axis1_scale"].shape == (6,)
    for channel in range(6):  # each column has its own scale
        assert octavo.sqnr(net(x)[:, channel], q(x)[:, channel]) > 28
    assert octavo.sqnr(q(x), q.compile()(x)) > 40


@pytest.mark.parametrize("operator", [torch.matmul, torch.bmm])
def test_a_constant_stack_of_matrices_stays_float(operator):
    """As in relative positions: OpenVINO's int8 kernel multiplies it wrongly."""

    class Stack(nn.Module):
        def __init__(self):
            super().__init__()
            self.first = nn.Linear(8, 8)
            self.stack = nn.Parameter(torch.randn(6, 8, 5))

        def forward(self, x):
            return operator(self.first(x).permute(1, 0, 2), self.stack)

    q = quantize(Stack(), torch.randn(32, 6, 8))
    x = torch.randn(9, 6, 8)
    assert octavo.sqnr(q(x), q.compile()(x)) > 50
    (row,) = [r for r in q.report().rows if r.operator in ("matmul", "bmm")]
    assert (row.precision, "stack of matrices" in row.reason) == ("float", True)


def test_factors_that_do_not_fit_are_refused():
    class Product(nn.Module):
        def forward(self, x, y):
            return x @ y

    with pytest.raises(octavo.DataError, match="does not take"):
        octavo.quantize(Product(), (torch.rand(4, 3, 5), torch.rand(4, 3, 5)))
