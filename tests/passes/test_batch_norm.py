import pytest
import torch
from torch import nn

from networks import warmed
from octavo.capture.export import capture
from octavo.graph.names import operator_name
from octavo.passes.batch_norm import fold_batch_norm
from stages import rewritten


def tidied(net, *args):
    module, _ = capture(net, args)
    return rewritten(module)


def operators(module):
    return [operator_name(n) for n in module.graph.nodes if n.op == "call_function"]


@pytest.mark.parametrize(
    "layer",
    [
        nn.Conv1d(4, 6, 3, bias=False),
        nn.Conv2d(4, 6, 3, groups=2),
        nn.Conv3d(4, 6, 3),
        nn.ConvTranspose1d(4, 6, 3),
        nn.ConvTranspose2d(4, 6, 3, groups=2, bias=False),
        nn.ConvTranspose2d(4, 6, 3, stride=2),
        nn.Linear(4, 6),
    ],
    ids=str,
)
def test_batch_norm_folds_into_what_is_before_it(layer):
    dims = {"1d": 1, "2d": 2, "3d": 3}.get(type(layer).__name__[-2:], 0)
    norm = {0: nn.BatchNorm1d, 1: nn.BatchNorm1d, 2: nn.BatchNorm2d, 3: nn.BatchNorm3d}[dims](6)
    nn.init.uniform_(norm.weight, 0.5, 2)
    nn.init.normal_(norm.bias)
    shape = (4,) + (5,) * dims
    net = warmed(nn.Sequential(layer, norm), lambda n: ((torch.randn(n, *shape),), {}))
    x = torch.randn(3, *shape)
    module = tidied(net, x)
    assert len(operators(module)) == 1
    torch.testing.assert_close(module(x)[0], net(x), rtol=1e-4, atol=1e-5)


def test_a_convolution_called_twice_with_two_batch_norms_is_folded_twice():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.a, self.b = nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3), nn.BatchNorm2d(3)
            self.b.running_mean += 1

        def forward(self, x):
            return self.b(self.conv(self.a(self.conv(x))))

    net, x = Twice().eval(), torch.randn(2, 3, 4, 4)
    module = tidied(net, x)
    assert operators(module) == ["conv2d", "conv2d"]
    torch.testing.assert_close(module(x)[0], net(x))


def test_a_pair_called_twice_shares_the_folded_weights():
    pair = nn.Sequential(nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3))
    x = torch.randn(2, 3, 4, 4)
    module, _ = capture(nn.Sequential(pair, nn.ReLU(), pair), (x,))
    fold_batch_norm(module)
    weights = {n.args[1].target for n in module.graph.nodes if operator_name(n) == "conv2d"}
    assert len(weights) == 1


def test_batch_norm_before_an_unpadded_convolution_folds_onward():
    net = nn.Sequential(nn.BatchNorm2d(3), nn.Conv2d(3, 4, 3))
    net = warmed(net, lambda n: ((torch.randn(n, 3, 8, 8) + 2,), {}))
    x = torch.randn(2, 3, 8, 8)
    module = tidied(net, x)
    assert operators(module) == ["conv2d"]
    torch.testing.assert_close(module(x)[0], net(x), rtol=1e-4, atol=1e-5)


def test_batch_norm_before_a_padded_convolution_does_not():
    net = nn.Sequential(nn.BatchNorm2d(3), nn.Conv2d(3, 4, 3, padding=1)).eval()
    net[0].running_mean += 1
    x = torch.randn(2, 3, 8, 8)
    module = tidied(net, x)
    assert operators(module) == ["mul", "add", "conv2d"]
    torch.testing.assert_close(module(x)[0], net(x))


def test_batch_norm_that_uses_the_batchs_statistics_is_left_alone():
    net = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4, track_running_stats=False))
    x = torch.randn(2, 3, 8, 8)
    module = tidied(net, x)
    assert "batch_norm" in operators(module)
    torch.testing.assert_close(module(x)[0], net(x))


def test_only_graphs_have_nodes():
    with pytest.raises(AttributeError):
        fold_batch_norm(nn.ReLU())
