import pytest
import torch
import torch.nn.functional as F
from torch import nn

from octavo import DataError
from octavo.calibrate.ranges import Ranges
from octavo.capture.export import capture
from octavo.config import Config
from octavo.convert import choose
from octavo.graph.qparams import ACTIVATION, SYMMETRIC_ACTIVATION
from octavo.passes import run_passes
from octavo.sites.sites import match


class Products(nn.Module):
    """A product of two activations, one of them never negative."""

    def forward(self, x, y):
        return F.softmax(x @ y, -1) @ y


def chosen(net, *inputs, **settings):
    sites = match(run_passes(capture(net, inputs)), config=Config(**settings))
    ranges = Ranges(sites)
    ranges.observe(inputs)
    return {node.name: qparams for node, qparams in choose(sites, ranges).items()}


def test_operands_of_a_product_have_zero_point_0_and_use_all_integers():
    torch.manual_seed(0)
    qparams = chosen(Products(), torch.randn(4, 8, 8) * 3, torch.randn(4, 8, 8))
    softmax, y = qparams["softmax"], qparams["y"]
    assert (softmax.spec, softmax.zero_point.item()) == (ACTIVATION, 0)
    assert (y.spec, y.zero_point.item()) == (SYMMETRIC_ACTIVATION, 0)


def test_an_output_of_softmax_is_within_half_a_step_of_256():
    torch.manual_seed(0)
    x, y = torch.randn(4, 8, 8) * 3, torch.randn(4, 8, 8)
    qparams = chosen(Products(), x, y, observer="minmax")["softmax"]
    assert qparams.scale.item() == pytest.approx(F.softmax(x @ y, -1).max().item() / 255, rel=0.05)


def test_values_that_share_a_scale_get_one_object():
    class Joined(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b, self.c = nn.Conv2d(3, 4, 1), nn.Conv2d(3, 4, 1), nn.Conv2d(8, 2, 1)

        def forward(self, x):
            return self.c(torch.cat([self.a(x), 10 * self.b(x).relu()], 1))

    qparams = chosen(Joined(), torch.randn(2, 3, 4, 4))
    assert qparams["conv2d"] is qparams["mul"] is qparams["cat"]


@pytest.mark.parametrize("observer", ["moving_average", "mse", "percentile", "entropy", "minmax"])
def test_what_is_rounded_for_an_engine_alone_is_not_clipped(observer):
    """A convolution read by float operators before another one: a hint of its whole range."""
    net = nn.Sequential(nn.Conv2d(3, 4, 1), nn.Softmax(1), nn.Conv2d(4, 2, 1)).eval()
    x = torch.randn(8, 3, 6, 6)
    x[0, 0, 0, 0] = 100.0  # which any observer but minmax clips
    sites = match(run_passes(capture(net, (x,))), config=Config(observer=observer))
    (hint,) = sites.demand.hints
    ranges = Ranges(sites)
    for batch in x.split(2):
        ranges.observe([batch])
    low, high = choose(sites, ranges)[hint].range
    value = net[0](x)
    step = (high - low) / 255
    assert low == pytest.approx(value.min().item(), abs=step)
    assert high == pytest.approx(value.max().item(), abs=step)


def test_before_anything_was_observed_nothing_can_be_chosen():
    sites = match(run_passes(capture(nn.Linear(4, 2), (torch.rand(3, 4),))))
    with pytest.raises(DataError, match="nothing was observed"):
        choose(sites, Ranges(sites))


class Attention(nn.Module):
    """Attention over a free length, masked before the softmax and after it."""

    def forward(self, x, y):
        p = F.softmax(x @ y.transpose(-1, -2), -1)
        return p.masked_fill(x[..., :1] > 9, 0.0).unsqueeze(1).squeeze(1) @ y


def test_a_softmax_over_a_free_length_is_never_clipped():
    """Over 100 positions no value is above 0.1, and over one it is 1."""
    torch.manual_seed(0)
    calls = [(0.1 * torch.randn(4, n, 8),) * 2 for n in (100, 90)]
    graph = run_passes(capture(Attention(), calls[0], {}, [(calls[1], {})]))
    sites = match(graph)
    ranges = Ranges(sites)
    ranges.observe(calls[0])
    operand = next(n for n in sites.graph.graph.nodes if n.name == "masked_fill")
    assert ranges.extremes([operand])[1] < 0.1
    assert choose(sites, ranges)[operand].range == pytest.approx((0, 1))


def test_a_softmax_over_a_fixed_length_has_the_range_seen():
    torch.manual_seed(0)
    x = 0.1 * torch.randn(4, 100, 8)
    qparams = chosen(Attention(), x, x)
    assert qparams["masked_fill"].range[1] < 0.1
