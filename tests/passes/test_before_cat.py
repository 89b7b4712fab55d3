"""What is computed of joined channels moves to the layers before the concatenation."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import octavo
from networks import warmed
from octavo.capture.export import capture
from octavo.graph.names import operator_name
from stages import rewritten


class Joined(nn.Module):
    """Three convolutions whose channels are joined, normalized and activated."""

    def __init__(self, activation=F.relu, **norm):
        super().__init__()
        self.layers = nn.ModuleList(nn.Conv2d(4, 3 + i, 3, padding=1) for i in range(3))
        self.norm = nn.BatchNorm2d(12, **norm)
        self.activation = activation
        if norm.get("affine", True):
            nn.init.uniform_(self.norm.weight, 0.5, 2)
            nn.init.normal_(self.norm.bias)

    def joined(self, x):
        return torch.cat([layer(x) for layer in self.layers], 1)

    def forward(self, x):
        return self.activation(self.norm(self.joined(x)))


def images(n):
    return ((torch.randn(n, 4, 6, 5),), {})


def operators(net, x):
    module = rewritten(capture(net, (x,))[0])
    torch.testing.assert_close(module(x)[0], net(x), rtol=1e-4, atol=1e-5)
    return [operator_name(n) for n in module.graph.nodes if n.op == "call_function"]


@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize("activation", [nn.ReLU(), nn.SiLU(), nn.LeakyReLU(0.3)], ids=str)
def test_norm_and_activation_become_those_of_each_layer(activation, affine):
    net = warmed(Joined(activation, affine=affine).eval(), images)
    names = operators(net, torch.randn(2, 4, 6, 5))
    assert names[-1] == "cat"
    assert names.count("conv2d") == 3 and len(names) == 7  # an activation each


def test_a_negative_dimension_of_channels_counts_too():
    class Negative(Joined):
        def joined(self, x):
            return torch.cat([layer(x) for layer in self.layers], -3)

    assert operators(warmed(Negative().eval(), images), torch.randn(2, 4, 6, 5))[-1] == "cat"


class ReadTwice(Joined):
    def forward(self, x):
        y = self.joined(x)
        return self.activation(self.norm(y)) + y


class PartReadTwice(Joined):
    def forward(self, x):
        first = self.layers[0](x)
        y = torch.cat([first, *(layer(x) for layer in self.layers[1:])], 1)
        return self.activation(self.norm(y)) + first.mean()


class Rows(Joined):
    """Joined along the height: a channel's scale is every part's."""

    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleList(nn.Conv2d(4, 12, 3, padding=1) for _ in range(2))

    def joined(self, x):
        return torch.cat([layer(x) for layer in self.layers], 2)


class WithInput(Joined):
    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleList([nn.Conv2d(4, 8, 3, padding=1)])

    def joined(self, x):
        return torch.cat([x, self.layers[0](x)], 1)


@pytest.mark.parametrize("kind", [ReadTwice, PartReadTwice, Rows, WithInput])
def test_others_stay_behind_the_concatenation(kind):
    names = operators(warmed(kind().eval(), images), torch.randn(2, 4, 6, 5))
    after = names[names.index("cat") :]
    assert "relu" in after and "mul" in after


def test_a_weight_of_each_channel_stays_behind_it():
    class Parametric(Joined):
        def __init__(self):
            super().__init__(nn.PReLU(12, 0.2))

        def forward(self, x):
            return self.activation(self.joined(x))

    names = operators(Parametric().eval(), torch.randn(2, 4, 6, 5))
    assert names[-1] == "prelu" and names.count("prelu") == 1


def test_the_layers_are_quantized_with_their_activations():
    net = warmed(nn.Sequential(Joined(), nn.Conv2d(12, 4, 1)).eval(), images)
    data = [torch.randn(8, 4, 6, 5) for _ in range(4)]
    q = octavo.quantize(net, data)
    assert {row.operator for row in q.report().rows if row.precision == "float"} <= set()
    x = torch.randn(5, 4, 6, 5)
    assert octavo.metrics.sqnr(net(x), q(x)) > 30
    assert octavo.metrics.sqnr(q.compile("reference")(x), q.compile()(x)) > 45
