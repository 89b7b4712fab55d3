import math

import pytest
import torch
from torch import nn

import octavo
from networks import calls, make
from octavo.metrics import FloatReference
from octavo.search.sensitivity import site_sensitivity
from stages import converted


def observed(net, *batches):
    return converted(net, batches, observer="minmax")


def sensitivity(emission, batches):
    return {site.name: noise for site, noise in site_sensitivity(emission, batches).items()}


@pytest.mark.parametrize("name", ["residual", "mobile", "dense", "transformer", "shuffle"])
def test_together_they_predict_the_noise_that_is_measured(name):
    net, inputs = make(name)
    x = torch.cat([args[0] for args in calls(inputs, 8)])
    emission = observed(net, x)
    effects = sensitivity(emission, [[x]])
    predicted = -10 * math.log10(sum(effects.values()))
    reference = FloatReference(emission.sites.graph.module, [[x]])
    measured = reference.noise(emission.module).sqnr
    assert predicted == pytest.approx(measured, abs=2)


def test_one_linear_layer_by_hand():
    """Its output is the output: the effect is the energy of what it computes wrongly."""
    net, x = nn.Linear(16, 8), torch.randn(256, 16)
    emission = observed(net, x)
    (effect,) = sensitivity(emission, [[x]]).values()
    noise = (emission.module(x)[0] - net(x)).square().sum() / net(x).square().sum()
    assert effect == pytest.approx(float(noise), rel=0.3)


def test_a_site_that_the_output_hardly_depends_on_costs_little():
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.loud, self.quiet = nn.Linear(8, 8), nn.Linear(8, 8)

        def forward(self, x):
            return self.loud(x) + 0.001 * self.quiet(torch.tanh(x))

    x = torch.randn(64, 8)
    effects = sensitivity(observed(Two(), x), [[x]])
    assert effects["linear"] > 1000 * effects["linear_1"]


def test_token_ids_have_no_gradient_and_need_none():
    class Words(nn.Module):
        def __init__(self):
            super().__init__()
            self.embed, self.head = nn.Embedding(50, 16), nn.Linear(16, 4)

        def forward(self, ids):
            return self.head(self.embed(ids).mean(1))

    ids = torch.randint(50, (32, 6))
    effects = sensitivity(observed(Words(), ids), [[ids]])
    assert set(effects) == {"embedding", "mean", "linear"}
    assert all(0 < effect < 0.01 for effect in effects.values())


def test_the_model_is_left_without_gradients():
    net, x = nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 2)), torch.randn(32, 8)
    sensitivity(observed(net, x), [[x]])
    assert all(p.grad is None for p in net.parameters())
    assert x.grad is None
    assert not x.requires_grad


def test_inputs_of_another_shape_are_refused():
    emission = observed(nn.Linear(4, 2), torch.randn(2, 4))
    with pytest.raises(RuntimeError):
        sensitivity(emission, [[torch.randn(2, 5)]])


def test_sites_of_the_report_are_those_with_an_effect():
    net, inputs = make("residual")
    batches = [args[0] for args in calls(inputs)]
    q = octavo.quantize(net, batches)
    effects = sensitivity(observed(net, *batches), [[b] for b in batches])
    int8 = {r.name: r.operator for r in q.report().rows if r.precision == "int8"}
    assert {int8.pop(site) for site in effects} == {
        "conv2d",
        "conv2d + relu",
        "add + relu",
        "adaptive_avg_pool2d",
        "linear",
    }
    assert set(int8.values()) == {"max_pool2d", "flatten"}  # these only move integers


def test_random_numbers_of_the_caller_stay_as_they_are():
    net, x = nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 4)).eval(), torch.randn(16, 8)
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    first = octavo.quantize(net, x, target_sqnr=60).report()
    assert torch.equal(torch.rand(3), expected)
    assert octavo.quantize(net, x, target_sqnr=60).report() == first  # the same each time
