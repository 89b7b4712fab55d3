import copy

import pytest
import torch
from torch import nn

import octavo
from octavo import DataError, EngineError
from octavo.calibrate import compiled as module
from octavo.calibrate.compiled import FORMS, Calibration, Truth, by_node, compiled
from octavo.calibrate.observers import Histogram
from octavo.calibrate.ranges import Ranges
from octavo.capture.export import capture
from octavo.config import Config
from octavo.engines.base import compile_graph
from octavo.passes import run_passes
from octavo.sites.sites import match


class Net(nn.Module):
    """Images, then tokens, then a vector: channels first, last, and alone."""

    def __init__(self):
        super().__init__()
        self.stem, self.norm = nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8)
        self.mix, self.head = nn.Linear(8, 16), nn.Linear(16, 4)

    def forward(self, x):
        x = self.norm(self.stem(x)).relu()
        return self.head(self.mix(x.flatten(2).transpose(1, 2)).relu().mean(1))


class Inexact:
    """A compiled model whose form in bfloat16 has an error of so many dB; None: it has none."""

    def __init__(self, model, noise):
        self.model, self.noise, self.run = model, noise, model.run

    def in_bfloat16(self):
        if self.noise is None:
            raise EngineError("no bfloat16 here")
        form = Inexact(self.model, None)
        form.run = lambda inputs: [y * (1 + 10 ** (-self.noise / 20)) for y in self.run(inputs)]
        return form


@pytest.fixture
def sites():
    torch.manual_seed(0)
    graph = run_passes(capture(Net().eval(), (torch.randn(4, 3, 24, 20),), {}))
    return match(graph, config=Config())


def compile_for(sites):
    """Compiles to what has no bfloat16 form, on any CPU."""

    def compile(graph):
        return Inexact(compile_graph(graph, sites.graph.signature), None)

    return compile


def compiled_for(sites, x, compile=None):
    """The compiled observation of calls like `x`."""
    ranges = Ranges(sites)
    truth = Truth(ranges, samples=len(x))
    ranges.observe([x], truth.see)
    return compiled(truth, [x], compile or compile_for(sites), FORMS)


def test_it_finds_what_pytorch_finds(sites):
    x, own, other = torch.randn(4, 3, 24, 20), Ranges(sites), Ranges(sites)
    own.observe([x])
    run = compiled_for(sites, x)
    other.add(by_node(other.observers, run([x])))
    for node, observer in own.observers.items():
        assert other.observers[node].range() == pytest.approx(observer.range(), rel=1e-4, abs=1e-5)
        counts = other.observers[node].counts.sum(), observer.counts.sum()
        assert counts[0] == counts[1]  # so small that all values are counted


def test_compiled_once_that_pays_and_the_ranges_are_nearly_the_same(sites, monkeypatch):
    xs = [torch.randn(4, 3, 24, 20) for _ in range(6)]
    own, calibration = Ranges(sites), Calibration(Ranges(sites), compile_for(sites))
    monkeypatch.setattr(module, "WORTH_IT", 1.0)
    runs = []
    for x in xs:
        own.observe([x])
        calibration.observe([x])
        runs.append(calibration.run is not None)
    assert runs == [False, *[True] * 5]
    for node, observer in own.observers.items():
        found = calibration.ranges.observers[node]
        assert found.range() == pytest.approx(observer.range(), rel=1e-4, abs=1e-5)


class Joined(nn.Module):
    """An input, of which it is not known what counts places, and joined values of which it is."""

    def __init__(self):
        super().__init__()
        self.stem, self.mix = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(16, 4, 1)

    def forward(self, x):
        y = self.stem(x)
        return self.mix(torch.cat([y, y.sigmoid()], 1).relu())


def test_samples_of_all_values_agree_with_pytorch(monkeypatch):
    monkeypatch.setattr(Histogram, "counted", classmethod(lambda cls, samples: 100))
    torch.manual_seed(0)
    x = torch.randn(4, 3, 12, 20)
    sites = match(run_passes(capture(Joined().eval(), (x,), {})), config=Config())
    truth = Truth(Ranges(sites), samples=4)
    truth.ranges.observe([x], truth.see)
    for node in truth.steps:
        assert truth.values[node][2].numel() < 100 * 16
    assert compiled(truth, [x], compile_for(sites), FORMS) is not None


@pytest.mark.parametrize(
    ("calls", "worth", "first"), [(None, 2, 1), (None, 3, 2), (5, 4, 0), (5, 5, None), (41, 40, 0)]
)
def test_how_many_calls_are_left_decides(sites, monkeypatch, calls, worth, first):
    """worth: in calls. first: of the four that follow the first one, the one that compiles."""
    x = torch.randn(4, 3, 24, 20)
    calibration = Calibration(Ranges(sites), compile_for(sites), calls)
    calibration.observe([x])
    monkeypatch.setattr(module, "WORTH_IT", worth * calibration.work)
    runs = []
    for _ in range(4):
        calibration.observe([x])
        runs.append(calibration.run is not None)
    assert runs == [first is not None and i >= first for i in range(4)]


def test_other_shapes_run_in_pytorch(sites, monkeypatch):
    monkeypatch.setattr(module, "WORTH_IT", 1.0)
    calibration = Calibration(Ranges(sites), compile_for(sites))
    for n in (4, 4, 2):
        x = torch.randn(n, 3, 24, 20)
        x[0, 0, 0, 0] = 10.0 * n
        calibration.observe([x])
    (first,) = sites.graph.module.graph.find_nodes(op="placeholder")
    assert calibration.ranges.observers[first].range()[1] == 40.0
    calibration.observe([torch.full((2, 3, 24, 20), 90.0)])
    assert calibration.ranges.observers[first].range()[1] == 90.0


@pytest.mark.parametrize("wrong", ["other numbers", "an error"])
def test_a_runtime_that_is_wrong_is_not_used(sites, wrong):
    def compile(graph):
        found = compile_for(sites)(graph)
        plain = found.run

        def run(inputs):
            if wrong == "an error":
                raise RuntimeError("no kernel")
            return [2 * y for y in plain(inputs)]

        found.run = run
        return found

    assert compiled_for(sites, torch.randn(4, 3, 24, 20), compile) is None


@pytest.mark.parametrize(("noise", "taken"), [(45.0, True), (35.0, False), (None, False)])
def test_bfloat16_where_it_is_nearly_exact(sites, noise, taken):
    x = torch.randn(4, 3, 24, 20)
    run = compiled_for(sites, x, lambda g: Inexact(compile_for(sites)(g), noise))
    exact = compiled_for(sites, x)([x])
    found = min(octavo.sqnr(a, b) for a, b in zip(exact, run([x]), strict=True))
    assert found == pytest.approx(noise, abs=0.1) if taken else found > 100


@pytest.mark.parametrize(("worth", "tried"), [(2, True), (4, False)])
def test_bfloat16_is_tried_where_enough_is_left(sites, monkeypatch, worth, tried):
    """worth: in calls, of three that are left."""
    forms = []

    class Noted(Inexact):
        def in_bfloat16(self):
            forms.append("bfloat16")
            return super().in_bfloat16()

    x = torch.randn(4, 3, 24, 20)
    calibration = Calibration(Ranges(sites), lambda g: Noted(compile_for(sites)(g), 45.0), 4)
    calibration.observe([x])
    monkeypatch.setattr(module, "WORTH_IT", 1.0)
    monkeypatch.setattr(module, "WORTH_HALVING", worth * calibration.work)
    calibration.observe([x])
    assert calibration.run is not None
    assert bool(forms) == tried


def test_values_that_are_not_finite_are_named_as_by_pytorch(sites, monkeypatch):
    monkeypatch.setattr(module, "WORTH_IT", 1.0)
    calibration = Calibration(Ranges(sites), compile_for(sites))
    x = torch.randn(4, 3, 24, 20)
    calibration.observe([x])
    calibration.observe([x])
    assert calibration.run is not None
    bad = x.clone()
    bad[1, 2, 3, 4] = float("nan")
    with pytest.raises(DataError, match="NaN or infinity"):
        calibration.observe([bad])
    with pytest.raises(DataError, match=r"has values from .*inf"):
        calibration.observe([x * 3e38])


def test_a_whole_model_is_as_accurate(monkeypatch):
    torch.manual_seed(0)
    net, xs = Net().eval(), [torch.randn(4, 3, 24, 20) for _ in range(12)]
    plain = octavo.quantize(copy.deepcopy(net), xs)
    monkeypatch.setattr(module, "WORTH_IT", 1.0)
    fast = octavo.quantize(net, xs)
    x = torch.randn(16, 3, 24, 20)
    with torch.no_grad():
        quality = [octavo.sqnr(net(x), q(x)) for q in (plain, fast)]
    assert quality[1] > quality[0] - 1.0
