import pytest
import torch
from torch import nn

import octavo
from networks import calls, make
from octavo import Config
from octavo.quantizer import Quantizer
from octavo.tune import steps
from octavo.tune.steps import Evidence, convert_tuned, equalize_if_better


def observed(config):
    """A network that has seen some batches; to tune on and to measure on."""
    net, inputs = make("residual")
    batches = [args[0] for args in calls(inputs, 6)]
    quantizer = Quantizer(net.eval(), config=config)
    with torch.no_grad():
        for x in batches:
            quantizer.observe(x)
    flat = [[x] for x in batches]
    return quantizer, Evidence(quantizer.module, flat[:4], flat[4:])


def test_a_part_of_the_evidence_is_its_first_samples():
    x = torch.arange(12.0).view(6, 2)
    evidence = Evidence(nn.Identity(), [[x[:2]], [x[2:4]], [x[4:]]], [[x]])
    few = evidence.part(3)
    assert torch.equal(torch.cat([inputs[0] for inputs in few.tuning]), x[:3])
    assert torch.equal(torch.cat([inputs[0] for inputs in few.measuring]), x[:3])


def test_without_a_batch_each_input_is_a_sample():
    images = [[torch.randn(3, 5, 5)] for _ in range(6)]
    few = Evidence(nn.Identity(), images, images, batched=False).part(4)
    assert [inputs[0].shape for inputs in few.tuning] == [(3, 5, 5)] * 4


@torch.no_grad()
def test_what_does_not_help_is_undone(monkeypatch):
    def ruin(quantizer, runs):
        def visit(node):
            if node.target is torch.ops.aten.conv2d.default:
                runs.module.get_buffer(node.args[1].args[0].target).zero_()

        return visit

    config = Config(round_weights=False)
    quantizer, evidence = observed(config)
    before = evidence.noise(quantizer.quantize()).sqnr
    monkeypatch.setitem(steps.METHODS, "correct_biases", ("ruin", ruin))
    done = convert_tuned(quantizer, evidence)
    ((step),) = done.steps
    assert (step.method, step.before, step.kept) == ("ruin", before, False)
    assert step.after < 10 < before
    assert evidence.noise(done.graph).sqnr == done.output.sqnr == before


@torch.no_grad()
def test_the_measured_gain_is_that_of_the_graph_returned():
    quantizer, evidence = observed(Config())
    done = convert_tuned(quantizer, evidence)
    (kept,) = (step for step in done.steps if step.kept)
    assert kept.after == pytest.approx(evidence.noise(done.graph).sqnr, abs=1e-6)
    assert kept.after > kept.before


@torch.no_grad()
def test_without_methods_nothing_is_tried():
    quantizer, evidence = observed(Config(correct_biases=False, round_weights=False))
    assert convert_tuned(quantizer, evidence).steps == ()


def test_channels_that_are_alike_are_not_tried():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 4, 3)).eval()
    quantizer = Quantizer(net, config=Config())
    x = torch.randn(8, 3, 9, 9)
    with torch.no_grad():
        quantizer.observe(x)
        kept, tried = equalize_if_better(quantizer, Evidence(quantizer.module, [[x]], [[x]]))
    assert kept is quantizer and tried == ()


def test_inputs_of_another_shape_are_refused():
    quantizer, _ = observed(Config())
    wrong = Evidence(quantizer.module, [[torch.randn(2, 7)]], [[torch.randn(2, 7)]])
    with pytest.raises((RuntimeError, octavo.OctavoError)):
        wrong.noise(quantizer.quantize())
