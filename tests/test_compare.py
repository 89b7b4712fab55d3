import math

import pytest
import torch
from torch import nn

import octavo
from octavo import DataError


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(16, 32), nn.Linear(32, 5)

    def forward(self, x, scale=None):
        return self.b(self.a(x).relu())


@pytest.fixture(scope="module")
def models():
    torch.manual_seed(0)
    net = Net().eval()
    data = [torch.randn(32, 16) for _ in range(4)]
    return net, octavo.quantize(net, data), octavo.quantize(net, data, "fast")


@torch.no_grad()
def test_float_and_quantized(models):
    net, q, _ = models
    x = [torch.randn(40, 16), torch.randn(24, 16)]
    found = octavo.compare(net, q, x, rounds=2)
    whole = torch.cat(x)
    fast = q.compile("openvino")(whole)
    assert found.sqnr == pytest.approx(octavo.sqnr(net(whole), fast), abs=0.1)
    same = (net(whole).argmax(1) == fast.argmax(1)).float().mean().item()
    assert found.samples == 64 and found.agreement == pytest.approx(same, abs=0.02)
    assert min(found.milliseconds) > 0
    assert found.megabytes[0] == pytest.approx((16 * 32 + 32 + 32 * 5 + 5) * 4 / 1e6)
    assert [s.precision for s in found.sites] == [("float", "int8")] * len(found.sites)
    assert "samples: SQNR" in str(found.__rich__().title)


def test_two_quantized_models(models):
    _, q, fast = models
    found = octavo.compare(fast, q, torch.randn(32, 16), rounds=1)
    assert math.isfinite(found.sqnr)
    rows = {r.path: r.sqnr for r in fast.report().rows}
    assert {s.path: s.sqnr[0] for s in found.sites} == rows
    assert found.to_dict()["samples"] == 32


def test_it_prints_as_a_table_and_says_what_may_be_wrong(models):
    net, q, _ = models
    text = str(octavo.compare(net, q, torch.randn(32, 16), rounds=1))
    assert "calibration dB" in text and "a call with 32 samples" in text and "weights" not in text
    other = str(octavo.compare(Net().eval(), q, torch.randn(32, 16), rounds=1))
    assert "do both have the same weights" in other


def test_a_model_with_itself(models):
    net, q, _ = models
    found = octavo.compare(net, net, torch.randn(8, 16), rounds=1)
    assert (found.sqnr, found.agreement, found.sites) == (math.inf, 1.0, ())
    assert found.to_dict()["sqnr"] == "inf"
    compiled = q.compile("reference")
    assert octavo.compare(compiled, q, torch.randn(8, 16), rounds=1).sqnr > 60


def test_other_outputs_are_refused(models):
    with pytest.raises(DataError, match=r"shapes \(8, 5\) and \(8, 3\)"):
        octavo.compare(models[0], nn.Linear(16, 3), torch.randn(8, 16))


def test_no_data_is_refused(models):
    with pytest.raises(DataError, match="is empty"):
        octavo.compare(models[0], models[1], [])
