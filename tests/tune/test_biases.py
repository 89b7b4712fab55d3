import pytest
import torch
from torch import nn

import octavo
from networks import NETWORKS, calls, make
from octavo import Config
from octavo.tune.biases import correct_biases
from octavo.tune.layerwise import tune_layers
from stages import converted as observed

torch.manual_seed(0)


class Coarse(nn.Module):
    """One weight of each output channel is a hundred times the rest, which round badly."""

    def __init__(self, layer, activation=None):
        super().__init__()
        self.layer, self.activation = layer, activation or nn.Identity()
        self.last = nn.Linear(6, 3) if isinstance(layer, nn.Linear) else nn.Conv2d(6, 3, 1)
        with torch.no_grad():
            self.layer.weight.flatten(1)[:, 0] = 20.0
            self.layer.weight.flatten(1)[:, 1:] = torch.rand(6, self.layer.weight[0].numel() - 1)

    def forward(self, x):
        return self.last(self.activation(self.layer(x)))


@pytest.mark.parametrize("activation", [None, nn.ReLU(), nn.Hardswish(), nn.PReLU()])
@pytest.mark.parametrize("kind", ["conv", "no bias", "linear"])
@torch.no_grad()
def test_channel_means_after_the_activation_become_the_float_ones(kind, activation):
    layer = nn.Linear(8, 6) if kind == "linear" else nn.Conv2d(8, 6, 3, bias=kind == "conv")
    net = Coarse(layer, activation)
    shape = (8,) if kind == "linear" else (8, 9, 9)
    batches = [torch.rand(16, *shape) - 0.3 for _ in range(4)]
    emission = observed(net, batches)
    x = torch.cat(batches)

    def errors(emission):
        """Mean error of each channel of what the last layer reads, before it is quantized."""
        root = emission.sites.weighted()[-1].root
        copy = emission.copies[root]
        value = next(v for n, v in values(emission.module, x) if n is copy)
        difference = value - net.activation(net.layer(x))
        return difference.transpose(0, 1).flatten(1).mean(1).abs()

    before = errors(emission)
    after = errors(tune_layers(emission, [[b] for b in batches], correct_biases))
    assert before.max() > 1e-3
    assert after.max() < before.max() / 4


def values(graph, x):
    class Keeping(torch.fx.Interpreter):
        def run_node(self, n):
            value = super().run_node(n)
            seen.append((n, value))
            return value

    seen = []
    Keeping(graph).run(x)
    return seen


@torch.no_grad()
def test_a_linear_layer_is_corrected_by_the_mean_error_of_its_own_output():
    net = Coarse(nn.Linear(8, 6)).layer
    x = torch.rand(512, 8)
    emission = observed(net, [x])
    error = net(x) - emission.module(x)[0]
    tuned = tune_layers(emission, [[x]], correct_biases)
    moved = tuned.module(x)[0] + error - net(x)
    chance = error.var(0) / len(x)
    expected = error.mean(0) * (1 - chance / error.mean(0) ** 2).clamp(min=0)
    torch.testing.assert_close(moved, expected.expand_as(moved), rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", NETWORKS)
def test_no_network_gets_worse_and_the_report_says_what_was_gained(name):
    net, inputs = make(name)
    q = octavo.quantize(net, calls(inputs), config=Config(equalize=False))
    report = q.report()
    assert report.steps
    for step in report.steps:
        assert step.kept == (step.after >= step.before)
    kept = [step.after for step in report.steps if step.kept]
    assert report.output_sqnr == (kept[-1] if kept else report.steps[0].before)


def test_a_bias_that_the_model_computes_is_left_alone():
    class Computed(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer, self.last = nn.Linear(8, 6), nn.Linear(6, 3)

        def forward(self, x):
            bias = self.layer.bias * x.abs().mean()
            return self.last(torch.nn.functional.linear(x, self.layer.weight, bias))

    x = torch.randn(32, 8)
    q = octavo.quantize(Computed(), x)
    corrected = [name for name, _ in q.named_buffers() if "corrected" in name]
    assert len(corrected) == 1
    assert octavo.sqnr(q(x), q.compile()(x)) > 40


def test_a_clipped_outlier_in_each_sample_does_not_shift_the_others():
    """Its error alone makes a mean error of 2 in each channel, hundreds of times the others'."""
    net = nn.Linear(8, 4)
    with torch.no_grad():
        net.weight.copy_(torch.rand(4, 8) + 0.5)
    x = torch.rand(16, 30, 8)
    emission = observed(net, [x])
    graph = emission.module
    outliers = x.clone()
    outliers[:, 0] = 10
    before = (graph(x)[0] - net(x))[:, 1:].abs().mean()
    error = (graph(outliers)[0] - net(outliers)).mean((0, 1)).abs()
    assert (error > 1).all()
    graph = tune_layers(emission, [[outliers]], correct_biases).module
    assert (graph(x)[0] - net(x))[:, 1:].abs().mean() < 1.01 * before


def test_it_can_be_left_out():
    net, inputs = make("residual")
    config = Config(correct_biases=False, equalize=False, round_weights=False)
    q = octavo.quantize(net, calls(inputs), config=config)
    assert q.report().steps == ()


def test_a_model_without_int8_weights_has_nothing_to_correct():
    q = octavo.quantize(nn.ReLU(), torch.randn(4, 8))
    assert q.report().steps == ()


def test_samples_to_tune_on_are_needed():
    with pytest.raises(octavo.ConfigError, match="tune_samples"):
        Config(tune_samples=0)
