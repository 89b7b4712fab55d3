import pytest
import torch
from torch import nn

import octavo
from octavo import Config, ConfigError, SiteConfig
from octavo.metrics import sqnr

INTEGERS = {"lstm": SiteConfig(activations="static")}


class Net(nn.Module):
    def __init__(self, **settings):
        super().__init__()
        self.layer = nn.LSTM(12, 16, batch_first=True, **settings)

    def forward(self, x):
        return self.layer(x)[0]


def quantized(net, sites=None, **settings):
    data = [torch.randn(8, length, 12) for length in (10, 15, 12, 9, 14, 8)]
    config = Config(activations="static", sites=sites or {}, **settings)
    return octavo.quantize(net.eval(), data, config=config)


def test_float_on_int8_weights_unless_asked_for():
    (row,) = [r for r in quantized(Net()).report().rows if r.operator == "lstm"]
    assert (row.precision, row.activations) == ("float", "float")
    assert row.reason == "rounding errors would accumulate in its state; weights are int8"


@pytest.mark.parametrize("settings", [{}, {"bidirectional": True}, {"bias": False}])
@torch.no_grad()
def test_integers_where_asked_for(settings, tmp_path):
    net = Net(**settings).eval()
    q = quantized(net, INTEGERS)
    (row,) = [r for r in q.report().rows if r.operator == "lstm"]
    assert (row.precision, row.activations) == ("int8", "static")
    x = torch.randn(3, 21, 12)
    assert 25 < sqnr(net(x), q(x)) < 50
    octavo.save(q, tmp_path / "net.octavo")
    assert torch.equal(octavo.load(tmp_path / "net.octavo")(x), q(x))


def test_each_layer_has_its_own_setting():
    q = quantized(Net(num_layers=2), {"lstm_input_1": SiteConfig(activations="static")})
    rows = [r.precision for r in q.report().rows if r.operator == "lstm"]
    assert rows == ["float", "int8"]


def test_projected_states_stay_float():
    q = quantized(Net(proj_size=4), INTEGERS)
    (row,) = [r for r in q.report().rows if r.operator == "lstm"]
    assert row.precision == "float"


@pytest.mark.parametrize("kind", [nn.GRU, nn.RNN])
def test_other_kinds_stay_float(kind):
    net = Net()
    net.layer = kind(12, 16, batch_first=True)
    q = quantized(net, {"layer": SiteConfig(activations="static")})
    assert {r.precision for r in q.report().rows} == {"float"}


def test_entries_that_name_no_layer_are_refused():
    with pytest.raises(ConfigError, match=r"sites\['lstms'\] matches no site"):
        quantized(Net(), {"lstms": SiteConfig(activations="static")})
