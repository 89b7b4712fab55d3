import pytest
import torch
from torch import nn

import octavo
from octavo import Config, SiteConfig
from octavo.search import dynamic


@pytest.fixture
def ratio(fake_race):
    """The time of any network over that of the static one: 1 unless set."""
    return fake_race(dynamic, 1.0)


class Tokens(nn.Module):
    """Linear layers over tokens of very different size, which one scale does not suit."""

    def __init__(self, width=256):
        super().__init__()
        self.up, self.down = nn.Linear(width, 2 * width), nn.Linear(2 * width, width)

    def forward(self, x):
        y = self.down(self.up(x).relu())
        return y / y.norm(dim=-1, keepdim=True)


def tokens(count, width=256):
    return torch.randn(count, 16, width) * torch.logspace(-2, 0, 16)[:, None]


def activations(net, data, **settings):
    """How the inputs of linear layers are rounded, and the steps that the report shows."""
    report = octavo.quantize(net.eval(), data, config=Config(min_sqnr=0, **settings)).report()
    rows = [r for r in report.rows if "linear" in r.operator]
    return {r.path: r.activations for r in rows}, [s for s in report.steps if "linear" in s.method]


def test_layers_become_dynamic_where_that_is_more_accurate(ratio):
    found, (step,) = activations(Tokens(), [tokens(8) for _ in range(3)])
    assert found == {"up": "dynamic", "down": "dynamic"}
    assert step.kept and step.after > step.before + 6
    assert ratio["asked"] > 0


def test_and_not_where_that_is_slower(ratio):
    ratio["ratio"] = 1.2
    found, (step,) = activations(Tokens(), [tokens(8) for _ in range(3)])
    assert found == {"up": "static", "down": "static"}
    assert not step.kept and step.after > step.before + 6  # what it would have been


def test_what_an_entry_says_is_left_as_it_is(ratio):
    sites = {"up": SiteConfig("static"), "down": SiteConfig("float")}
    found, _ = activations(Tokens(), [tokens(8) for _ in range(3)], sites=sites)
    assert found == {"up": "static", "down": "float"}


@pytest.mark.parametrize("setting", ["static", "dynamic"])
def test_a_setting_needs_no_trial(ratio, setting):
    found, steps = activations(Tokens(), [tokens(8) for _ in range(3)], activations=setting)
    assert (found, steps) == ({"up": setting, "down": setting}, [])
    assert ratio["asked"] == 0


@pytest.mark.parametrize(
    ("net", "data"),
    [
        (Tokens(16), tokens(32, 16)),  # too small to time
        (nn.Sequential(nn.Conv2d(3, 64, 3), nn.Flatten(), nn.Linear(64 * 900, 4)), None),
    ],
)
def test_small_networks_and_convolutional_ones_are_not_tried(ratio, net, data):
    data = torch.randn(8, 3, 32, 32) if data is None else data
    found, steps = activations(net, data)
    assert set(found.values()) == {"static"}
    assert steps == [] and ratio["asked"] == 0


def test_what_several_kinds_could_gain_together():
    """Half of the noise and another quarter of it: a quarter is left, which is 6 dB less."""
    assert dynamic._possible(20.0, [20 + 3.0103, 20 + 1.2494]) == pytest.approx(6.02, abs=0.01)
    assert dynamic._possible(20.0, [18.0, 20.0]) == 0.0  # nothing gained
    assert dynamic._possible(20.0, [30.0, 30.0]) == float("inf")


def test_nothing_is_raced_where_even_all_dynamic_gains_nothing(ratio, monkeypatch):
    monkeypatch.setattr(dynamic, "ENOUGH", 90.0)
    net = nn.Sequential(nn.Linear(256, 512), nn.ReLU(), nn.Linear(512, 256))
    found, (step,) = activations(net, [torch.randn(8, 16, 256).clamp(-1, 1) for _ in range(3)])
    assert set(found.values()) == {"static"} and not step.kept
    assert step.after < step.before + dynamic.LEAST_GAIN and ratio["asked"] == 0
