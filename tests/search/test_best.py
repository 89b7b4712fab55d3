import dataclasses
import math
import time

import pytest
import torch
from torch import nn

import octavo
from networks import calls, make
from octavo import Config, ConfigError
from octavo.convert import QuantizedWeights
from octavo.metrics import Noise
from octavo.search import best
from octavo.search.best import CHANGES, GROUPS, Found, Recipe, Search, judged

SEARCH = Config(tune_samples=16, measure_samples=16, search_seconds=60)


def found(*noises):
    tuned = type("Tuned", (), {"output": Noise()})
    return Found(Recipe(), tuned, noises)


def test_a_gain_is_judged_by_groups():
    step = judged("a", found(1e-3, 1e-4, 1e-5), found(1e-4, 1e-5, 1e-6))
    assert (step.gain, step.spread, step.kept) == (
        pytest.approx(10),
        pytest.approx(0, abs=1e-9),
        True,
    )
    mixed = judged("a", found(1e-3, 1e-3, 1e-3), found(1e-4, 1e-2, 9e-4))  # +10, -10, +0.5 dB
    assert mixed.gain == pytest.approx((10 - 10 + 10 * math.log10(1 / 0.9)) / 3)
    assert mixed.spread > mixed.gain
    assert not mixed.kept
    assert not judged("a", found(1e-3, 1e-3), found(1e-3, 1e-3)).kept
    assert judged("a", found(1e-3), found(0.0)).gain == math.inf
    assert not judged("a", found(0.0), found(0.0)).kept


@pytest.fixture
def trials(monkeypatch):
    """The recipes that were tried."""
    tried = []
    original = best.Search._runner
    monkeypatch.setattr(best.Search, "_worth_float", lambda *_: {})

    def runner(self, module):
        tried.append(module)
        return original(self, module)

    monkeypatch.setattr(best.Search, "_runner", runner)
    return tried


def network():
    net, inputs = make("residual")
    return net, [args[0] for args in calls(inputs, 12)]


def test_every_setting_is_tried_and_the_report_says_what_it_gave(trials):
    net, batches = network()
    q = octavo.quantize(net, batches, SEARCH)
    assert len(trials) == 1 + len(CHANGES)
    steps = [s for s in q.report().steps if s.gain is not None]
    assert [s.method for s in steps] == list(CHANGES)
    assert all(s.kept == (s.gain > s.spread) for s in steps)
    printed = str(q.report())
    assert "tried on samples that nothing was tuned on" in printed
    assert all(name in printed for name in CHANGES)
    again = octavo.Report.from_dict(q.report().to_dict())
    assert again.steps == q.report().steps


def test_what_is_found_is_no_worse_on_other_data(trials):
    net, batches = network()
    plain = octavo.quantize(net, batches, dataclasses.replace(SEARCH, search_seconds=0))
    searched = octavo.quantize(net, batches, SEARCH)
    net, inputs = make("residual")
    x = torch.cat([args[0] for args in calls(inputs, 30)[12:]])
    assert octavo.sqnr(net(x), searched(x)) > octavo.sqnr(net(x), plain(x)) - 0.5


def test_without_time_nothing_more_is_tried(trials, monkeypatch):
    clock = iter(range(0, 10_000, 100))
    monkeypatch.setattr(time, "monotonic", lambda: next(clock))
    net, batches = network()
    q = octavo.quantize(net, batches, SEARCH, seconds=1)
    assert q.config.search_seconds == 1
    assert len(trials) == 1
    assert "no time left to try" in str(q.report())


class Ends(nn.Module):
    """A large layer, and a small one that makes nearly all of the noise."""

    def __init__(self):
        super().__init__()
        self.large, self.small = nn.Linear(64, 64), nn.Linear(64, 2)

    def forward(self, x):
        return self.small(self.large(x).relu())


@pytest.mark.parametrize("ratio", [1.0, 1.2])
def test_small_sites_stay_float_where_that_takes_no_time(fake_race, ratio):
    fake_race(best, ratio)
    q = octavo.quantize(Ends(), torch.randn(256, 64), SEARCH)
    kinds = {r.path: r for r in q.report().rows if r.path}
    assert kinds["large"].precision == "int8"  # in float it is too large
    assert kinds["small"].precision == ("float" if ratio == 1.0 else "int8")
    if ratio == 1.0:
        assert kinds["small"].reason == best.IN_FLOAT


def test_without_an_engine_nothing_is_timed(monkeypatch):
    monkeypatch.setattr(best, "HAS_ENGINE", False)
    monkeypatch.setattr(best, "Race", None)
    q = octavo.quantize(Ends(), torch.randn(64, 64), SEARCH)
    assert q.report().int8_share == 1


def test_a_target_is_reached_from_what_was_found():
    q = octavo.quantize(Ends(), torch.randn(256, 64), SEARCH, target_sqnr=60)
    assert q.report().output_sqnr >= 60


def test_the_preset_searches():
    assert octavo.PRESETS["best"].search_seconds > 0
    assert octavo.PRESETS["balanced"].search_seconds == 0
    with pytest.raises(ConfigError, match="search_seconds"):
        octavo.quantize(Ends(), torch.randn(8, 64), seconds=-1)


def test_without_a_search_all_samples_kept_for_it_are_measured_on():
    net, x = Ends().eval(), torch.randn(256, 64)
    x[32:64] *= 3  # noisier than the first 32
    q = octavo.quantize(net, x, Config(measure_samples=64))
    assert q.sqnr == pytest.approx(octavo.sqnr(net(x[:64]), q(x[:64])), abs=0.01)
    assert abs(q.sqnr - octavo.sqnr(net(x[:32]), q(x[:32]))) > 0.1


def test_samples_of_one_label_are_not_divided(monkeypatch):
    seen = []

    def best(self, sites, show):
        seen.append([torch.cat([x for (x,) in group]) for group in self.samples.groups(GROUPS)])
        seen.append(torch.cat([x for (x,) in self.samples.tuning]))
        return original(self, sites, show)

    original = Search.best
    monkeypatch.setattr(Search, "best", best)
    clip = torch.arange(256) * 7 % 5
    x = torch.randn(256, 64)
    x[:, 0] = clip / 100
    octavo.quantize(Ends(), x.split(16), "best", seconds=0.01, groups=clip)
    groups, tuned = seen
    apart = [set(samples[:, 0].tolist()) for samples in (*groups, tuned)]
    assert len(groups) > 1 and all(len(labels) == 1 for labels in apart[:-1])
    assert sum(map(len, apart)) == len(set.union(*apart)) == 5


def test_weights_are_rounded_once_for_all_trials(trials, monkeypatch):
    asked = []
    original = QuantizedWeights._quantized

    def count(self, *key):
        asked.append((id(self), key))
        return original(self, *key)

    monkeypatch.setattr(QuantizedWeights, "_quantized", count)
    octavo.quantize(Ends(), torch.randn(256, 64), Config("mse", "static", search_seconds=60))
    of_trials = [key for made, key in asked if made == asked[-1][0]]
    assert len(of_trials) == len(set(of_trials)) == 2
