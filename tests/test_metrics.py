import dataclasses
import math

import pytest
import torch
from torch import nn

import octavo
from octavo import sqnr
from octavo.metrics import Noise, Step
from octavo.printed import as_json_data


def test_by_hand():
    assert sqnr(torch.tensor([3.0, 4.0]), torch.tensor([3.0, 4.5])) == pytest.approx(20.0)


def test_equal_is_infinite_and_silence_is_minus_infinite():
    x = torch.rand(4)
    assert sqnr(x, x.clone()) == math.inf
    assert sqnr(torch.zeros(4), x) == -math.inf


def test_the_worst_of_several():
    reference = {"a": torch.tensor([10.0]), "b": (torch.tensor([10.0]), torch.tensor([1, 2]))}
    value = {"a": torch.tensor([10.1]), "b": (torch.tensor([11.0]), torch.tensor([1, 2]))}
    assert sqnr(reference, value) == pytest.approx(20.0, abs=1e-3)


def test_noise_adds_up_over_batches():
    a, b = torch.randn(100), torch.randn(100)
    noise = Noise()
    for part_a, part_b in zip(a.split(30), b.split(30), strict=True):
        noise.add(part_a, part_b)
    assert noise.sqnr == pytest.approx(sqnr(a, b), abs=1e-4)


def test_infinities_that_agree_are_no_noise():
    a = torch.tensor([-math.inf, 3.0, 4.0])
    assert sqnr(a, torch.tensor([-math.inf, 3.0, 4.5])) == pytest.approx(20.0)
    assert sqnr(a, torch.tensor([0.0, 3.0, 4.5])) == -math.inf


def test_other_structures_are_refused():
    with pytest.raises(ValueError, match="zip"):
        sqnr((torch.rand(2), torch.rand(2)), torch.rand(2))


def test_masks_of_booleans_have_no_noise():
    class Masked(nn.Module):
        def __init__(self):
            super().__init__()
            self.head = nn.Linear(4, 4)

        def forward(self, x, keep):
            keep = keep[:, None].transpose(0, 1).reshape(-1, 1)
            return self.head(x).masked_fill(~keep, 0.0)

    net, x, keep = Masked(), torch.rand(8, 4), torch.rand(8) > 0.5
    q = octavo.quantize(net, (x, keep))
    assert octavo.sqnr(net(x, keep), q(x, keep)) > 30
    assert all(r.sqnr is None for r in q.report().rows if r.operator in ("transpose", "reshape"))


def test_a_step_as_text_and_from_json():
    plain = Step("bias correction", 20.0, math.inf, True)
    assert plain.text() == "bias correction: 20.0 -> exact dB"
    judged = Step("percentile ranges", 20.0, 19.5, False, -0.5, 0.25)
    assert judged.text("to") == (
        "percentile ranges: 20.0 to 19.5 dB, by groups of samples -0.50 ± 0.25 dB, not kept"
    )
    for step in (plain, judged):
        assert Step.from_dict(as_json_data(dataclasses.asdict(step))) == step
    with pytest.raises(ValueError, match="could not convert"):
        Step.from_dict({"method": "", "kept": True, "before": "much", "after": 1.0})
