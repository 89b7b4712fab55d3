import pytest
import torch
from torch import nn

from octavo.capture.export import capture
from octavo.graph.names import operator_name
from octavo.passes.canonicalize import canonicalize
from stages import rewritten


def tidied(net, *args):
    module, _ = capture(net, args)
    return rewritten(module)


def operators(module):
    return [operator_name(n) for n in module.graph.nodes if n.op == "call_function"]


def test_swish_written_out_is_silu():
    class Swish(nn.Module):
        def forward(self, x):
            return x * torch.sigmoid(x), x * torch.sigmoid(x + 1)

    x = torch.randn(2, 4)
    module = tidied(Swish(), x)
    assert sorted(operators(module)) == ["add", "mul", "sigmoid", "silu"]
    torch.testing.assert_close(module(x), Swish()(x))


@pytest.mark.parametrize("alpha", [1, 2])
def test_addmm_of_constants_is_a_linear_layer(alpha):
    class Conv1D(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight, self.bias = (nn.Parameter(torch.randn(s)) for s in ((4, 6), (6,)))

        def forward(self, x):
            return torch.addmm(self.bias, x, self.weight, alpha=alpha)

    net, x = Conv1D(), torch.randn(3, 4)
    graph = rewritten(capture(net, (x,))[0])
    assert (torch.ops.aten.linear.default in [n.target for n in graph.graph.nodes]) == (alpha == 1)
    torch.testing.assert_close(graph(x)[0], net(x))


def test_only_graphs_have_nodes():
    with pytest.raises(AttributeError):
        canonicalize(nn.ReLU())
