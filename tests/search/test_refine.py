import pytest
import torch
from torch import nn

from octavo import DataError
from octavo.calibrate.ranges import Ranges
from octavo.calibrate.samples import Samples
from octavo.metrics import FloatReference
from octavo.search.refine import FACTORS, refined, with_ranges_of
from stages import converted


class Heard(nn.Module):
    """Two values in one tensor, of which the large ones hardly reach the output."""

    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Linear(8, 8), nn.Linear(8, 4)
        with torch.no_grad():
            self.first.weight.copy_(torch.eye(8))
            self.first.bias.zero_()
            self.last.weight[:, 0] = 1e-4

    def forward(self, x):
        return self.last(self.first(x).relu())


def loud(samples, seed):
    generator = torch.Generator().manual_seed(seed)
    x = torch.rand(samples, 8, generator=generator)
    x[:, 0] *= 12
    return x


def observed(*seen, **settings):
    emission = converted(Heard(), seen, observer="minmax", **settings)
    ranges = Ranges(emission.sites)
    for x in seen:
        ranges.observe([x])
    return emission, ranges


def always():
    return True


@torch.no_grad()
def test_a_range_is_cut_where_its_ends_are_not_heard():
    x = loud(64, 0)
    emission, ranges = observed(x)
    better = refined(emission, ranges, Samples([[x]], [[x]], (0,)), always)
    reference = FloatReference(emission.sites.graph.module, [[loud(256, 1)]])
    before, after = (reference.noise(e.module).sqnr for e in (emission, better))
    assert after > before + 4  # the step is half as wide, the weights are as they were
    relu = next(n for n in emission.qparams if "relu" in n.name)
    assert emission.qparams[relu].range[1] == pytest.approx(float(x.max()), rel=0.01)
    assert better.qparams[relu].range[1] < 6
    assert better.sites is emission.sites
    assert better.weights is emission.weights


@torch.no_grad()
def test_nothing_reaches_beyond_what_was_seen():
    x = loud(64, 0)
    emission, ranges = observed(x)
    better = refined(emission, ranges, Samples([[x]], [[x]], (0,)), always)
    for n, p in better.qparams.items():
        low, high = ranges.extremes(emission.sites.groups[emission.sites.demand.group_of(n)])
        step = float(p.scale)
        assert p.range[0] >= min(low, 0.0) - step
        assert p.range[1] <= high + step


@torch.no_grad()
def test_the_same_samples_give_the_same_ranges_and_little_time_fewer_samples():
    x = loud(64, 0)
    emission, ranges = observed(x)
    samples, state = Samples([[x]], [[x]], (0,)), torch.random.get_rng_state()
    first, second = (refined(emission, ranges, samples, always) for _ in range(2))
    assert [p.range for p in first.qparams.values()] == [p.range for p in second.qparams.values()]
    assert torch.equal(torch.random.get_rng_state(), state)
    asked = []
    refined(emission, ranges, samples, lambda: asked.append(1))  # None: out of time
    assert len(asked) <= 2


@torch.no_grad()
def test_another_graph_takes_over_the_ranges_of_the_same_groups():
    x = loud(64, 0)
    emission, ranges = observed(x)
    better = refined(emission, ranges, Samples([[x]], [[x]], (0,)), always)
    again = with_ranges_of(emission, better)
    assert [p.range for p in again.qparams.values()] == [p.range for p in better.qparams.values()]
    other, _ = observed(x, keep_float=("last",))
    taken = with_ranges_of(other, better)
    known = {n.name: p.range for n, p in better.qparams.items()}
    assert all(known[n.name] == p.range for n, p in taken.qparams.items() if n.name in known)


def test_factors_narrow_and_widen():
    assert min(FACTORS) < 1 < max(FACTORS)
    assert 1 not in FACTORS  # the range as it is, is always tried


def test_what_was_not_observed_has_no_range():
    x = loud(8, 0)
    emission, _ = observed(x)
    with pytest.raises(DataError, match="observed"):
        refined(emission, Ranges(emission.sites), Samples([[x]], [[x]], (0,)), always)
