import pytest
import torch
from torch import nn

import octavo
from octavo.capture.export import capture
from octavo.capture.inplace import mutates
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


class Noisy(nn.Module):
    def __init__(self, make):
        super().__init__()
        self.make = make

    def forward(self, x):
        return x * 2 + self.make(x)


NOISE = {
    "empty_like": lambda x: torch.empty_like(x).normal_(3, 0.5),
    "empty": lambda x: torch.empty(x.shape[0], 4).uniform_(2, 4),
    "empty with a layout": lambda x: x.new_empty(x.shape, dtype=torch.float64).bernoulli_(0.5),
    "empty_strided": lambda x: torch.empty_strided((4,), (2,)).fill_(3),
    "bernoulli": lambda x: torch.empty_like(x).bernoulli_(0.25),
}


@pytest.mark.parametrize("name", NOISE)
def test_memory_is_not_returned_as_it_was_found_and_noise_is_the_same(name):
    net, x = Noisy(NOISE[name]), torch.randn(6, 4)
    module = tidied(net, x)
    assert not [n for n in operators(module) if n.startswith(("empty", "new_empty"))]
    assert not any(mutates(n) for n in module.graph.nodes)
    torch.manual_seed(3)
    expected = net(x)
    torch.manual_seed(3)
    torch.testing.assert_close(module(x)[0], expected, rtol=0, atol=0)


def test_only_graphs_have_nodes():
    with pytest.raises(AttributeError):
        canonicalize(nn.ReLU())


@pytest.mark.parametrize("engine", ["openvino", "onnxruntime", "torch_int8"])
@pytest.mark.parametrize("free", [False, True])
@pytest.mark.parametrize(("kernel", "stride", "padding"), [(3, 2, 0), (3, 2, 1), (3, 3, 1)])
def test_average_pools_that_count_padding_and_round_up(engine, free, kernel, stride, padding):
    """Windows beyond the padding, and windows that begin in it, are PyTorch's own."""
    pool = nn.AvgPool2d(kernel, stride, padding, ceil_mode=True)
    net = nn.Sequential(nn.Conv2d(3, 8, 1), pool, nn.Conv2d(8, 4, 1)).eval()
    nn.init.constant_(net[0].bias, 1.5)  # zero is far from the integers' zero point
    data = [torch.rand(4, 3, 9, 8), torch.rand(4, 3, 12, 11)]
    q = octavo.quantize(net, data if free else data[:1], config="fast")
    fast = q.compile(engine)
    for x in data if free else data[:1]:
        assert octavo.sqnr(net(x), fast(x)) > 30
