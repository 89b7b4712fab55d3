import pytest
import torch
from torch import nn

import octavo
from benchmarks import examples
from octavo import Config, SiteConfig
from octavo.search import recurrent


@pytest.fixture
def ratio(fake_race):
    """The time of any network with integer layers over that of the one before."""
    return fake_race(recurrent, 0.5)


class Layers(nn.Module):
    """Two layers, of which the output depends on the second much more exactly if `amplified`."""

    def __init__(self, amplified=0.0, width=128):
        super().__init__()
        self.a = nn.LSTM(width, width, batch_first=True)
        self.b = nn.LSTM(width, width, batch_first=True)
        self.amplified = amplified

    def forward(self, x):
        y = self.a(x)[0]
        z = self.b(y)[0]
        if not self.amplified:
            return z
        return self.amplified * (z - z.mean(1, keepdim=True)) ** 3 + y


def layers(net, width=128, **settings):
    """The precision of each layer, and the steps that the report shows."""
    data = [torch.randn(4, 12, width) for _ in range(6)]
    report = octavo.quantize(net.eval(), data, config=Config(min_sqnr=0, **settings)).report()
    found = {r.path: r.precision for r in report.rows if r.operator == "lstm"}
    return found, [s for s in report.steps if "LSTM" in s.method]


def test_integers_where_they_are_fast_and_the_output_stays_good(ratio):
    found, (step,) = layers(Layers())
    assert found == {"a": "int8", "b": "int8"}
    assert step.kept and step.after > 30
    assert ratio["asked"] == 1


def test_and_not_where_they_are_no_faster(ratio):
    ratio["ratio"] = 0.97
    found, (step,) = layers(Layers())
    assert found == {"a": "float", "b": "float"}
    assert not step.kept


def test_nor_where_too_much_would_be_lost(ratio):
    found, (step,) = layers(Layers(amplified=1e7))
    assert found["b"] == "float"
    assert step.after < step.before


def test_a_target_is_a_goal_as_well(ratio):
    found, (step,) = layers(Layers(), target_sqnr=60)
    assert found == {"a": "float", "b": "float"}
    assert not step.kept and ratio["asked"] == 0


@pytest.mark.parametrize("settings", [{"activations": "static"}, {"activations": "dynamic"}])
def test_a_setting_needs_no_trial(ratio, settings):
    found, steps = layers(Layers(), **settings)
    assert found == {"a": "float", "b": "float"}
    assert not steps and not ratio["asked"]


def test_what_an_entry_says_is_left_as_it_is(ratio):
    found, _ = layers(Layers(), sites={"a": SiteConfig(activations="float")})
    assert found == {"a": "float", "b": "int8"}


def test_small_layers_are_not_tried(ratio):
    found, steps = layers(Layers(width=16), width=16)
    assert found == {"a": "float", "b": "float"}
    assert not steps and not ratio["asked"]


@torch.no_grad()
def test_a_trained_reader_of_words_reads_as_before(ratio):
    reading = examples.reading()
    model, (_, images) = reading.load(), reading.words(96, seed=5)
    q = octavo.quantize(model, images.split(16))
    assert [r.precision for r in q.report().rows if r.operator == "lstm"] == ["int8", "int8"]
    texts, others = reading.words(200, seed=6)
    before, after = reading.read(model(others)), reading.read(q(others))
    assert sum(a == b for a, b in zip(before, texts, strict=True)) > 170
    assert sum(a == b for a, b in zip(before, after, strict=True)) >= 197
