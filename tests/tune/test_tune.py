import pytest
import torch
from torch import nn

import octavo
from networks import calls, make
from octavo.calibrate.samples import Samples
from octavo.metrics import FloatReference
from octavo.tune import tune as steps
from octavo.tune.tune import equalize_if_better, tune
from stages import converted, matched


def observed(**settings):
    """A network that has seen some batches, what to tune and measure on, and its float outputs."""
    net, inputs = make("residual")
    batches = [args[0] for args in calls(inputs, 6)]
    emission = converted(net, batches, **settings)
    flat = [[x] for x in batches]
    reference = FloatReference(emission.sites.graph.module, flat[4:])
    return emission, Samples(flat[:4], flat[4:]), reference


@torch.no_grad()
def test_what_does_not_help_is_undone(monkeypatch):
    def ruin(emission, runner):
        def hook(node):
            if node.target is torch.ops.aten.conv2d.default:
                runner.module.get_buffer(node.args[1].args[0].target).zero_()

        return hook

    emission, samples, reference = observed(round_weights=False)
    before = reference.noise(emission.module).sqnr
    monkeypatch.setitem(steps.METHODS, "correct_biases", ("ruin", ruin))
    done = tune(emission, samples, reference)
    ((step),) = done.steps
    assert (step.method, step.before, step.kept) == ("ruin", before, False)
    assert step.after < 10 < before
    assert reference.noise(done.emission.module).sqnr == done.output.sqnr == before


@torch.no_grad()
def test_the_measured_gain_is_that_of_the_graph_returned():
    emission, samples, reference = observed()
    done = tune(emission, samples, reference)
    (kept,) = (step for step in done.steps if step.kept)
    assert kept.after == pytest.approx(reference.noise(done.emission.module).sqnr, abs=1e-6)
    assert kept.after > kept.before


@torch.no_grad()
def test_without_methods_nothing_is_tried():
    assert tune(*observed(correct_biases=False, round_weights=False)).steps == ()


def test_channels_that_are_alike_are_not_tried():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 4, 3)).eval()
    x = torch.randn(8, 3, 9, 9)
    sites = matched(net, x)
    kept, tried = equalize_if_better(sites, Samples([[x]], [[x]]))
    assert kept is sites and tried == ()


def test_inputs_of_another_shape_are_refused():
    emission, _, _ = observed()
    wrong = FloatReference(emission.sites.graph.module, [[torch.randn(2, 7)]])
    with pytest.raises((RuntimeError, octavo.OctavoError)):
        wrong.noise(emission.module)
