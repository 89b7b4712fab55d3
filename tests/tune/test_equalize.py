import warnings

import pytest
import torch
from torch import nn

import octavo
from networks import NETWORKS, Bottlenecks, Outlier, calls, images, make, uneven
from octavo import Config
from octavo.calibrate.ranges import Ranges
from octavo.capture.export import capture
from octavo.graph.tensors import attribute
from octavo.passes import run_passes
from octavo.tune.channels import find_groups
from octavo.tune.equalize import equalize, move_scale
from stages import matched as captured


@pytest.mark.parametrize("name", NETWORKS)
def test_any_scale_of_any_group_leaves_the_float_function_as_it_is(name):
    net, inputs = make(name)
    args, kwargs = inputs(4)
    module, signature = run_passes(capture(net, args, kwargs))
    flat = signature.flatten(args, kwargs)
    before = torch.cat([t.flatten() for t in module(*flat)]).double()
    for group in find_groups(module.graph):
        move_scale(module, group, torch.rand(group.channels) + 0.5)
    module.recompile()
    after = torch.cat([t.flatten() for t in module(*flat)]).double()
    assert (after - before).norm() < 1e-5 * before.norm()


def test_a_scale_moves_from_weights_and_bias_to_the_next_weights():
    net = nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2))
    module = captured(net, torch.randn(5, 4)).graph.module
    (group,) = find_groups(module.graph)
    move_scale(module, group, torch.tensor([2.0, 1.0, 0.5]))
    first, last = (n for n in module.graph.nodes if n.name.startswith("linear"))
    values = [attribute(module, a.target) for a in (*first.args[1:], last.args[1])]
    torch.testing.assert_close(values[0], net[0].weight / torch.tensor([[2.0], [1.0], [0.5]]))
    torch.testing.assert_close(values[1], net[0].bias / torch.tensor([2.0, 1.0, 0.5]))
    torch.testing.assert_close(values[2], net[2].weight * torch.tensor([2.0, 1.0, 0.5]))


def test_layer_norm_gives_its_scale_to_linear_layers():
    net = nn.Sequential(nn.LayerNorm(8), nn.Linear(8, 4))
    net[0].weight.data = uneven(8, 0.002)
    net[1].weight.data /= uneven(8, 0.002)
    x = torch.randn(64, 8)
    module = equalize(captured(net, x), [[x]]).module
    norm = next(n for n in module.graph.nodes if n.target is torch.ops.aten.layer_norm.default)
    weight = attribute(module, norm.args[2].target)
    assert weight.max() / weight.min() < 50  # of 500
    torch.testing.assert_close(module(x)[0], net(x), rtol=1e-4, atol=1e-5)


def test_unlike_channels_become_alike_and_the_model_more_accurate():
    net, data = Bottlenecks(), [images(8) for _ in range(4)]
    x = images(64)
    plain = octavo.quantize(net, data, config=Config(equalize=False))
    q = octavo.quantize(net, data)
    (step,) = (s for s in q.report().steps if s.method == "equalization")
    assert step.kept
    assert octavo.sqnr(net(x), q(x)) > octavo.sqnr(net(x), plain(x)) + 3
    assert octavo.sqnr(q(x), q.compile()(x)) > 35


def test_clips_below_the_integers_range_need_no_operator_of_their_own():
    q = octavo.quantize(Bottlenecks(), [images(8) for _ in range(4)])
    assert any("equalization" in s.method and s.kept for s in q.report().steps)
    targets = {n.target for n in q.graph.nodes}
    assert torch.ops.aten.clamp.Tensor not in targets
    assert torch.ops.aten.relu.default in targets


def test_what_a_batch_norm_knows_of_a_channel_limits_its_scale():
    """A channel that is nearly idle in calibration, but was not in training, stays as it is."""
    net = nn.Sequential(nn.Conv2d(8, 8, 1), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 2, 1))
    with torch.no_grad():
        net[0].weight[:, :, 0, 0] = torch.eye(8)
        net[1].weight[4:] = net[1].running_var[4:] = 1.0
        net[3].weight[:, :, 0, 0] = torch.tensor([1.0] + 7 * [50.0])
    x = torch.randn(16, 8, 8, 8) * torch.tensor([1.0] + 7 * [0.02])[:, None, None]
    seen = {}
    for name, small in (("idle now", 1.0), ("always idle", 0.02)):
        with torch.no_grad():
            net[1].weight[1:], net[1].running_var[1:] = small, small**2
        graph = equalize(captured(net, x), [[x]])
        if graph is None:
            seen[name] = 1.0
            continue
        module = graph.module
        first = next(n for n in module.graph.nodes if n.target is torch.ops.aten.conv2d.default)
        weight = attribute(module, first.args[1].target).flatten(1).norm(dim=1)
        seen[name] = float(weight[1:].min() / weight[0])
    assert seen["idle now"] == 1.0  # batch norm saw a deviation of 1 in training
    assert seen["always idle"] > 2


@pytest.mark.parametrize("name", NETWORKS)
def test_networks_stay_correct_in_both_engines(name):
    net, inputs = make(name)
    q = octavo.quantize(net, calls(inputs, batches=6))
    args, kwargs = inputs(3)
    assert octavo.sqnr(q(*args, **kwargs), q.compile()(*args, **kwargs)) > 30
    assert octavo.sqnr(net(*args, **kwargs), q(*args, **kwargs)) > 15


def test_a_gain_that_a_trial_does_not_show_is_not_kept(monkeypatch):
    from octavo.tune import tune as steps

    monkeypatch.setattr(steps, "EQUALIZED_GAINS", 1000.0)
    q = octavo.quantize(Bottlenecks(), [images(8) for _ in range(4)])
    (step,) = (s for s in q.report().steps if s.method == "equalization")
    assert not step.kept
    assert not any("equalized" in name for name, _ in q.named_buffers())


def test_samples_that_fit_no_graph_are_refused():
    sites = captured(nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2)), torch.ones(2, 4))
    with pytest.raises(RuntimeError):
        equalize(sites, [[torch.ones(2, 5)]])


class PostNorm(nn.Module):
    """A layer norm whose output a residual add reads as well as the linear layers."""

    def __init__(self):
        super().__init__()
        self.norm = nn.LayerNorm(16)
        self.a, self.b, self.last = nn.Linear(16, 16), nn.Linear(16, 16), nn.Linear(16, 4)
        with torch.no_grad():
            self.norm.weight[0] = 40.0  # one channel far larger than the rest
            for linear in (self.a, self.b):
                linear.weight[:, 0] /= 40

    def forward(self, x):
        x = self.norm(x)
        return self.last((x + self.a(x) * torch.tanh(self.b(x))).tanh())


def test_where_nothing_takes_the_scale_in_the_readers_input_is_divided():
    net, x = PostNorm(), torch.randn(64, 16)
    module = equalize(captured(net, x), [[x]]).module
    (div,) = (n for n in module.graph.nodes if n.target is torch.ops.aten.div.Tensor)
    assert {u.name for u in div.users} == {"linear", "linear_1"}
    scale = attribute(module, div.args[1].target)
    assert scale[0] == 1
    assert scale[1:].max() < 0.5
    torch.testing.assert_close(module(x)[0], net(x), rtol=1e-4, atol=1e-5)


def test_a_division_before_linear_layers_helps_and_is_named_in_the_report():
    net, data, x = PostNorm(), [torch.randn(32, 16) for _ in range(4)], torch.randn(256, 16)
    plain = octavo.quantize(net, data, config=Config(equalize=False))
    q = octavo.quantize(net, data)
    assert octavo.sqnr(net(x), q(x)) > octavo.sqnr(net(x), plain(x)) + 3
    assert octavo.sqnr(q(x), q.compile()(x)) > 40
    (row,) = (r for r in q.report().rows if r.operator == "div")
    assert "same range" in row.reason
    sites = [r.site for r in q.report().rows if r.site is not None]
    assert sites == [r.site for r in plain.report().rows if r.site is not None]


def test_a_trial_of_both_forms_starts_from_nothing_observed():
    sites = captured(PostNorm(), torch.randn(64, 16))
    Ranges(sites).observe([torch.randn(64, 16)])
    other = sites.on(sites.graph, observer="entropy")
    assert other.config.observer == "entropy"
    assert sites.config.observer == "mse"
    assert all(observer.low == float("inf") for observer in Ranges(other).observers.values())


def test_what_would_collapse_does_not_even_need_the_guard():
    """The outlier of the tests of fallback: a division makes room for the channels beside it."""

    with warnings.catch_warnings():
        warnings.simplefilter("error", octavo.CollapseWarning)
        q = octavo.quantize(Outlier(), torch.randn(32, 8))
    assert q.report().int8_share == 1


def test_a_channel_that_the_samples_do_not_show_stays_as_it_is():
    """In use it may be as large as any; multiplied by 32 it would take all integers for itself."""
    from octavo.tune.equalize import Channels, _shares

    graph = captured(
        nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 2)), torch.randn(2, 4)
    ).graph.graph
    (group,) = find_groups(graph)
    seen = Channels()
    seen.add(torch.tensor([[8.0, 2.0, 0.1, 0.0], [1.0, 1.0, 0.0, 0.0]]), axis=1)
    expected = torch.tensor([1.0, 1.25 * 2 / 8, 1.25 * 0.1 / 8, 1.0])
    torch.testing.assert_close(_shares(group, [seen]), expected)
