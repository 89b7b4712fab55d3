import math

import pytest
import torch
from torch import nn

import octavo
from octavo.calibrate.observers import MSEObserver
from octavo.details import BINS, Spread, _condensed, spread_from_dict


class Net(nn.Module):
    """Two layers, of which the first loses much more by rounding."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.norm = nn.Linear(16, 16), nn.Linear(16, 8), nn.LayerNorm(16)
        self.a.weight.data[:, 0] *= 400

    def forward(self, x):
        return self.b(self.norm(self.a(x)))


def rows(net, data, **settings):
    config = octavo.Config(min_sqnr=0, equalize=False, **settings)
    return {r.path: r for r in octavo.quantize(net.eval(), data, config=config).report().rows}


@torch.no_grad()
def test_local_noise_is_that_of_the_site_alone():
    net, x = Net(), torch.randn(64, 16)
    found = rows(net, x, correct_biases=False, round_weights=False)
    scale = net.b.weight.abs().amax(1, keepdim=True) / 127
    weight = torch.round(net.b.weight / scale) * scale
    q = octavo.quantize(net, x, config="fast")
    exact = net.norm(net.a(x[:2]))
    of_weight = octavo.sqnr(nn.functional.linear(exact, net.b.weight),
                            nn.functional.linear(exact, weight))  # fmt: skip
    assert found["b"].local_sqnr < of_weight + 3  # its inputs are rounded as well
    assert found["b"].local_sqnr > found["b"].sqnr + 3  # the noise of `a` is not in it
    assert math.isclose(found["a"].local_sqnr, found["a"].sqnr, abs_tol=6)
    assert q.report().rows[0].local_sqnr is not None


@torch.no_grad()
def test_shares_add_up_and_name_the_noisiest():
    net, x = Net().eval(), torch.randn(256, 16)
    net.norm = nn.Identity()
    found = rows(net, x)
    shares = {path: r.noise_share for path, r in found.items() if r.noise_share is not None}
    assert math.isclose(sum(shares.values()), 1, abs_tol=1e-6)
    alone = {}
    for path, other in (("a", "b"), ("b", "a")):
        q = octavo.quantize(net, x, config=octavo.Config(keep_float=[other]))
        alone[path] = octavo.sqnr(net(x), q(x))
    assert max(shares, key=shares.get) == min(alone, key=alone.get)


def test_rows_know_what_they_read():
    found = rows(Net(), torch.randn(64, 16))
    assert found["b"].reads == (found["norm"].name,)
    assert found["norm"].reads == (found["a"].name,) and found["a"].reads == ()


def test_spreads_are_small_and_count_everything(tmp_path):
    q = octavo.quantize(nn.Sequential(nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 600)).eval(),
                        torch.randn(200, 16))  # fmt: skip
    spreads = q.report().spreads
    (counted,) = [s for s in spreads.values() if s.counts]
    assert sum(counted.counts) == 200 * 16 and len(counted.counts) <= BINS
    assert all(len(s.weights) <= 256 for s in spreads.values())
    octavo.save(q, tmp_path / "a.octavo")
    octavo.save(q, tmp_path / "b.octavo", histograms=True)
    assert not octavo.load(tmp_path / "a.octavo").report().spreads
    assert octavo.load(tmp_path / "b.octavo").report() == q.report()


def test_bins_are_summed_exactly():
    observer = MSEObserver()
    observer.observe(torch.linspace(-1, 3, 4001))
    counts, low, high = _condensed(observer)
    assert sum(counts) == 4001 and len(counts) <= BINS
    assert low <= -1 < 3 <= high and high - low < 4.2


def test_an_operator_without_gradients_has_no_share():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(16, 16), nn.Linear(16, 8)

        def forward(self, x):
            return self.b(torch.round(self.a(x).detach()))

    assert rows(Net(), torch.randn(64, 16))["b"].local_sqnr is not None


@pytest.mark.parametrize("data", [{}, {"counts": ["x"], "low": 0, "high": 0, "weights": []}])
def test_other_data_is_refused(data):
    with pytest.raises((KeyError, ValueError)):
        spread_from_dict(data)
    assert spread_from_dict({"counts": [1], "low": 0, "high": 1, "weights": []}) == Spread(
        (1,), 0.0, 1.0
    )
