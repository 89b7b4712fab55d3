import pytest
import torch
import torch.nn.functional as F
from torch import nn

import octavo
from networks import NETWORKS, make, warmed
from octavo.capture.export import capture
from octavo.graph.names import operator_name
from octavo.passes.batch_norm import fold_batch_norm
from stages import rewritten


def tidied(net, *args):
    module, _ = capture(net, args)
    return rewritten(module)


def operators(module):
    return [operator_name(n) for n in module.graph.nodes if n.op == "call_function"]


@pytest.mark.parametrize("name", NETWORKS)
def test_the_function_stays_the_same(name):
    net, inputs = make(name)
    args, kwargs = inputs(3)
    module, signature = capture(net, args, kwargs)
    rewritten(module)
    args, kwargs = inputs(5)
    got = signature.unflatten(module(*signature.flatten(args, kwargs)))
    torch.testing.assert_close(got, net(*args, **kwargs), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", NETWORKS)
def test_the_users_tensors_are_not_written_to(name):
    net, inputs = make(name)
    before = {k: v.clone() for k, v in net.state_dict().items()}
    tidied_args, tidied_kwargs = inputs(3)
    rewritten(capture(net, tidied_args, tidied_kwargs)[0])
    assert all(torch.equal(before[k], v) for k, v in net.state_dict().items())


def test_nothing_is_left_of_batch_norm_dropout_and_in_place_operators():
    for name in ("residual", "mobile", "unet", "volume"):
        net, inputs = make(name)
        found = operators(tidied(net, *inputs(2)[0]))
        assert not {"batch_norm", "dropout"} & set(found)
        assert not [f for f in found if f.endswith("_")]
    assert "mul" not in operators(tidied(make("unet")[0], torch.rand(2, 3, 16, 16)))


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


def test_constants_are_computed_once():
    class Table(nn.Module):
        def __init__(self):
            super().__init__()
            self.table = nn.Parameter(torch.randn(9, 4))

        def forward(self, x):
            return x + self.table[torch.arange(4) * 2].softmax(0).T

    net, x = Table(), torch.randn(2, 4, 4)
    module = tidied(net, x)
    assert "softmax" not in operators(module)
    torch.testing.assert_close(module(x)[0], net(x))


def test_swish_written_out_is_silu():
    class Swish(nn.Module):
        def forward(self, x):
            return x * torch.sigmoid(x), x * torch.sigmoid(x + 1)

    x = torch.randn(2, 4)
    module = tidied(Swish(), x)
    assert sorted(operators(module)) == ["add", "mul", "sigmoid", "silu"]
    torch.testing.assert_close(module(x), Swish()(x))


def test_every_argument_is_in_its_place():
    class Short(nn.Module):
        def forward(self, x):
            return F.max_pool2d(x, 2)

    module = tidied(Short(), torch.rand(2, 3, 4, 4))
    (node,) = [n for n in module.graph.nodes if n.op == "call_function"]
    assert list(node.args[1:]) == [[2, 2], [], [0, 0], [1, 1], False]


def test_a_graph_that_is_not_exported_is_refused():
    with pytest.raises(AttributeError):
        rewritten(nn.ReLU())


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


def test_nodes_named_like_methods_of_a_module():
    class Moves(nn.Module):
        def __init__(self):
            super().__init__()
            self.table, self.head = nn.Parameter(torch.randn(4, 4)), nn.Linear(4, 2)

        def forward(self, x):
            return self.head(x.to(torch.float32) @ self.table.to(torch.float64).float())

    net, x = Moves(), torch.randn(3, 4)
    torch.testing.assert_close(rewritten(capture(net, (x,))[0])(x)[0], net(x))


@pytest.mark.parametrize("enabled", [False, True])
def test_a_region_without_autocast_is_part_of_the_whole(enabled):
    class Region(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(4, 4), nn.Linear(4, 2)

        def forward(self, x):
            with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
                y = self.a(x).relu()
            return self.b(y.float())

    net, x = Region(), torch.randn(5, 4)
    graph = rewritten(capture(net, (x,))[0])
    linears = graph.graph.find_nodes(op="call_function", target=torch.ops.aten.linear.default)
    assert len(linears) == (1 if enabled else 2)
    torch.testing.assert_close(graph(x)[0], net(x))
    quantized = octavo.quantize(net, x)
    for run in (quantized, *([] if enabled else [quantized.compile()])):
        assert octavo.sqnr(net(x), run(x)) > 25


def test_a_mask_made_of_known_sizes_is_a_constant():
    class Windows(nn.Module):
        def forward(self, x):
            mask = x.new_zeros((4, 4))
            mask[:2, 2:] = 1
            return x + mask.masked_fill(mask != 0, -5.0)

    net, x = Windows(), torch.randn(3, 4, 4)
    graph = rewritten(capture(net, (x,))[0])
    assert len([n for n in graph.graph.nodes if n.op == "call_function"]) == 1
    torch.testing.assert_close(graph(x)[0], net(x))
