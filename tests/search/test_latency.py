import time
from functools import partial

import pytest
import torch
from torch import nn

import octavo
from networks import calls, make
from octavo import Config
from octavo.calibrate.ranges import Ranges
from octavo.convert import QuantizedWeights, convert
from octavo.graph.tensors import tensor_bytes
from octavo.search import latency
from octavo.search.latency import milliseconds_in_float
from stages import converted, matched

LATENCY = Config(optimize="latency")


def rows(q):
    return {r.operator: (r.precision, r.reason) for r in q.report().rows}


class Residuals(nn.Module):
    """Two adds of one shape, one of another."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 3, 3, padding=1), nn.Conv2d(3, 3, 3, padding=1)
        self.c, self.d = nn.Conv2d(3, 6, 2, 2), nn.Conv2d(6, 6, 3, padding=1)

    def forward(self, x):
        x = self.a(x).relu()
        x = self.b(x) + x
        x = self.b(x) + x
        x = self.c(x)
        return self.d(self.d(x) + x)


@pytest.fixture
def engine(monkeypatch):
    """Stands for measurements: ratios of trials in turn, and each operator's milliseconds.

    Returns a function of them that returns the list of trials made so far.
    """

    def stands_for(ratios, int8=1.0, plain=1.0):
        trials = []

        def measure(a, b):
            trials.append((a(), b()))
            return ratios[(len(trials) - 1) % len(ratios)]

        class Profile:
            total = 10.0

            def __init__(self, model, inputs):
                kinds = {node.get_type_name() for node in model.model.get_ops()}
                self.each = int8 if "FakeQuantize" in kinds else plain

            def of(self, names, without=()):
                return self.each if list(names) else 0.0

        monkeypatch.setattr(latency, "time_ratio", measure)
        monkeypatch.setattr(latency, "Profile", Profile)
        return trials

    return stands_for


def test_what_measures_slower_as_int8_stays_float(engine):
    trials = engine([0.9])
    net, inputs = make("residual")
    q = octavo.quantize(net, calls(inputs), config=LATENCY)
    assert len(trials) == 2  # add and the global average
    reason = "the model runs faster on this machine with add *x16x8x8 in float"
    assert rows(q)["add + relu"] == ("float", reason)
    assert rows(q)["adaptive_avg_pool2d"][0] == "float"
    assert rows(q)["conv2d + relu"] == ("int8", "")
    args, kwargs = inputs(3)
    assert octavo.sqnr(q(*args, **kwargs), q.compile()(*args, **kwargs)) > 35


def test_what_does_not_stays_int8(engine):
    trials = engine([0.99])
    net, inputs = make("residual")
    q = octavo.quantize(net, calls(inputs), config=LATENCY)
    plain = octavo.quantize(net, calls(inputs))
    assert len(trials) == 2
    assert rows(q) == rows(plain)


def test_what_was_to_be_float_stays_so_and_is_not_tried(engine):
    trials = engine([0.99])
    net, inputs = make("residual")
    config = Config(optimize="latency", keep_float=["add"])
    q = octavo.quantize(net, calls(inputs), config=config)
    assert len(trials) == 1
    assert rows(q)["add + relu"] == ("float", "keep_float='add'")


def test_sites_of_one_shape_are_judged_together_and_others_apart(engine):
    trials = engine([1.1, 0.9])  # of equal gains the last site first
    q = octavo.quantize(Residuals(), torch.randn(8, 3, 8, 8), config=LATENCY)
    adds = [(r.precision, r.reason.rpartition("with ")[2]) for r in q.report().rows]
    adds = [found for found, r in zip(adds, q.report().rows, strict=True) if r.operator == "add"]
    assert len(trials) == 2
    assert adds == [("float", "add *x3x8x8 in float")] * 2 + [("int8", "")]


def test_what_is_too_little_to_measure_is_tried_with_others_of_its_kind(engine):
    trials = engine([0.9], int8=0.15)  # of 10 ms: less than 2 %, two such are more
    q = octavo.quantize(Residuals(), torch.randn(8, 3, 8, 8), config=LATENCY)
    assert len(trials) == 1
    assert rows(q)["add"] == ("float", "the model runs faster on this machine with add in float")


def test_what_could_not_gain_is_not_tried(engine):
    trials = engine([0.5], int8=0.05)
    q = octavo.quantize(Residuals(), torch.randn(8, 3, 8, 8), config=LATENCY)
    assert trials == []
    assert q.report().int8_share == 1


def test_a_convolution_is_tried_where_it_is_faster_in_float(engine):
    trials = engine([0.9], int8=2.0, plain=1.0)
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 3))
    q = octavo.quantize(net, torch.rand(4, 3, 8, 8), config=LATENCY)
    assert len(trials) == 2
    assert rows(q)["conv2d + relu"][1].endswith("with conv2d *x4x6x6 in float")
    assert q.report().int8_share == 0


def test_a_model_of_convolutions_alone_has_nothing_to_try(engine):
    trials = engine([0.5], int8=1.0, plain=1.0)
    q = octavo.quantize(nn.Conv2d(3, 4, 3), torch.rand(4, 3, 8, 8), config=LATENCY)
    assert trials == []
    assert q.report().int8_share == 1


def test_the_profile_knows_operators_by_what_they_compute():
    net, inputs = make("residual")
    args, kwargs = inputs(4)
    fast = octavo.quantize(net, calls(inputs)).compile()
    profile = latency.Profile(fast, fast.flatten(args, kwargs))
    assert 0 < profile.of(["conv1/conv2d_1", "conv1/conv2d_1"]) <= profile.total
    assert profile.of(["conv1/conv2d_9"]) == profile.of([]) == 0
    fused = next(o.nodes for o in profile.operators if "conv2/conv2d_2" in o.nodes)
    assert any(name.startswith("add") for name in fused)
    assert profile.of(fused) > profile.of(fused, without=["conv2/conv2d_2"]) == 0
    assert profile.of(o for c in profile.operators for o in c.nodes) <= profile.total


class Spectral(nn.Module):
    """OpenVINO runs it in part only."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 3, 3, padding=1), nn.Conv2d(3, 3, 3, padding=1)

    def forward(self, x):
        x = self.a(x).relu()
        return torch.fft.fft2(self.b(self.b(x) + x)).real


def test_without_a_profile_all_without_weights_is_tried(monkeypatch):
    trials = []
    monkeypatch.setattr(latency, "time_ratio", lambda a, b: trials.append((a(), b())) or 0.9)
    with pytest.warns(octavo.PartitionWarning):
        q = octavo.quantize(Spectral(), torch.randn(4, 3, 8, 8), config=LATENCY)
    assert len(trials) == 1
    assert rows(q)["add"][0] == "float"
    assert rows(q)["conv2d"][0] == "int8"


@pytest.mark.parametrize(("seconds", "least", "most"), [(0.01, 12, 90), (0.03, 6, 12)])
def test_both_are_called_equally_often_and_fewer_times_where_one_is_much_slower(
    seconds, least, most
):
    counts = [0, 0]

    def call(i, seconds):
        counts[i] += 1
        time.sleep(seconds)

    assert latency.time_ratio(lambda: call(0, seconds), lambda: call(1, 0.01)) > 0
    assert counts[0] == counts[1] and least <= counts[0] <= most


def test_an_unknown_aim_is_refused():
    with pytest.raises(octavo.ConfigError, match="optimize='speed'"):
        Config(optimize="speed")


def test_a_ratio_is_measured_once(monkeypatch):
    calls = []
    monkeypatch.setattr(latency, "time_ratio", lambda a, b: 1.01)

    def compile(module):
        calls.append(module)
        return type("Compiled", (), {"run": lambda self, inputs: None})()

    graphs = [octavo.quantize(nn.Linear(8, n), torch.rand(4, 8)).graph_module for n in (2, 3)]
    race = latency.Race(graphs[1], compile, [torch.rand(4, 8)])
    first = race.ratio(graphs[0])
    assert len(calls) == 2 * latency.REPEATS
    again = latency.Race(graphs[1], compile, [torch.rand(4, 8)])
    assert again.ratio(graphs[0]) == first and len(calls) == 2 * latency.REPEATS
    with pytest.raises(AttributeError):
        race.ratio(None)


def test_what_is_much_slower_is_compiled_once(monkeypatch):
    calls = []

    def compile(module):
        calls.append(module)
        return type("Compiled", (), {"run": lambda self, inputs: None})()

    monkeypatch.setattr(latency, "_RATIOS", {})
    monkeypatch.setattr(latency, "time_ratio", lambda a, b: 1.5)
    graphs = [octavo.quantize(nn.Linear(8, n), torch.rand(4, 8)).graph_module for n in (2, 3)]
    race = latency.Race(graphs[1], compile, [torch.rand(4, 8)])
    assert race.ratio(graphs[0]) == 1.5
    assert [m is graphs[0] for m in calls].count(True) == 1


class Timed:
    """An engine whose calls take a millisecond for each MB of the graph's tensors."""

    def __init__(self, module):
        self.milliseconds = tensor_bytes(module) / 1e6

    def profile(self, inputs, calls):
        return [self]


@torch.no_grad()
def test_milliseconds_that_sites_take_longer_in_float():
    net = nn.Sequential(nn.Linear(64, 1024), nn.ReLU(), nn.Linear(1024, 8)).eval()
    x = torch.randn(4, 64)
    sites = matched(net, x)
    ranges = Ranges(sites)
    ranges.observe([x])
    weights = QuantizedWeights(sites.graph.module, sites.weight_spec)
    convert_sites = partial(convert, ranges=ranges, weights=weights)
    emission = convert_sites(sites)
    large, small = sites
    cost = milliseconds_in_float(emission, [large, small], convert_sites, Timed, [x])
    assert cost[large] > cost[small] > 0
    # weights take four bytes instead of one, and no scales; the scale of an input takes 8 bytes
    assert cost[large] == pytest.approx((3 * 64 * 1024 - 4 * 1024) / 1e6, abs=2e-5)
    assert cost[small] == pytest.approx((3 * 1024 * 8 - 4 * 8) / 1e6, abs=2e-5)
    same = milliseconds_in_float(emission, [large], lambda _: emission, Timed, [x])
    assert same[large] == pytest.approx(tensor_bytes(emission.module) / 1e9)  # a thousandth


@torch.no_grad()
def test_an_engine_without_times_says_nothing():
    x = torch.randn(4, 8)
    emission = converted(nn.Linear(8, 8), [x])
    assert milliseconds_in_float(emission, emission.sites, None, lambda _: Untimed(), [x]) == {}


class Untimed:
    """An engine that runs only some of the model."""

    def profile(self, inputs, calls):
        return None
