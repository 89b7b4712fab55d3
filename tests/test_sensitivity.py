import math

import pytest
import torch
from torch import nn

import octavo


class Net(nn.Module):
    """Of two layers of one size, the first is rounded much more coarsely."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(32, 32), nn.Linear(32, 32)
        self.a.weight.data[:, 0] *= 300

    def forward(self, x):
        return self.b(self.a(x).tanh())


@pytest.fixture
def net():
    torch.manual_seed(0)
    return Net().eval()


def test_the_worst_comes_first_and_the_curve_rises(net):
    data = [torch.randn(32, 32) for _ in range(4)]
    found = octavo.sensitivity(net, data, octavo.Config(equalize=False), timed=False)
    paths = [s.path for s in found.sites]
    assert paths.index("a") < paths.index("b")
    assert sum(s.share for s in found.sites) == pytest.approx(1)
    assert [p.floats for p in found.curve] == sorted({0, 1, 2, len(paths)})
    assert found.curve[1].sqnr > found.curve[0].sqnr + 3
    assert found.curve[-1].sqnr == math.inf
    assert found.to_dict()["curve"][-1]["sqnr"] == "inf"


def test_points_are_timed(net):
    found = octavo.sensitivity(net, torch.randn(32, 32), "fast")
    assert all(p.milliseconds > 0 for p in found.curve)


def test_the_model_stays_as_it_is(net):
    before = {k: v.clone() for k, v in net.state_dict().items()}
    octavo.sensitivity(net, torch.randn(32, 32), timed=False)
    assert all(torch.equal(v, before[k]) for k, v in net.state_dict().items())


def test_nothing_to_order():
    found = octavo.sensitivity(nn.Softmax(1), torch.randn(8, 4), timed=False)
    assert found.sites == () and [p.floats for p in found.curve] == [0]


def test_data_is_checked(net):
    with pytest.raises(octavo.DataError):
        octavo.sensitivity(net, None)
