import warnings

import pytest
import torch
from torch import nn

import octavo
from octavo import CollapseWarning, Config


class Fragile(nn.Module):
    """One activation has an outlier a thousand times the rest, which a later layer ignores."""

    def __init__(self):
        super().__init__()
        self.good, self.bad = nn.Linear(8, 8), nn.Linear(8, 8, bias=False)
        self.bad.weight[:, 0] = 0

    def forward(self, x):
        y = torch.tanh(self.good(x))
        y = torch.cat([y[:, :1] * 0 + 3000, y[:, 1:]], 1)
        return self.bad(y)


def collapsed(config):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        q = octavo.quantize(Fragile(), torch.randn(32, 8), config=config)
    return q, [w for w in caught if issubclass(w.category, CollapseWarning)]


def test_the_worst_site_alone_is_turned_float_with_a_warning():
    q, caught = collapsed(Config())
    precision = {r.path: r.precision for r in q.report().rows if r.path}
    assert precision == {"good": "int8", "bad": "float"}
    assert q.report().output_sqnr >= 10
    (warning,) = caught
    assert "bad" in str(warning.message)
    assert "good" not in str(warning.message)
    assert warning.filename == __file__  # points at the call of quantize
    reasons = [r.reason for r in q.report().rows if r.path == "bad"]
    assert "min_sqnr=10 dB" in reasons[0]


def test_the_guard_can_be_turned_off():
    q, caught = collapsed(Config(min_sqnr=0))
    assert caught == []
    assert q.report().int8_share == 1
    assert q.report().output_sqnr < 10


def test_no_warning_where_nothing_is_wrong():
    with warnings.catch_warnings():
        warnings.simplefilter("error", CollapseWarning)
        octavo.quantize(nn.Linear(8, 8), torch.randn(32, 8))


def test_a_target_out_of_reach_ends_with_all_float():
    with pytest.warns(CollapseWarning):
        q = octavo.quantize(nn.Linear(8, 8), torch.randn(32, 8), config=Config(min_sqnr=300))
    assert q.report().int8_share == 0
    x = torch.randn(4, 8)
    assert q(x).shape == (4, 8)


def test_keep_float_is_not_undone():
    config = Config(min_sqnr=10, keep_float=["good"])
    q, _ = collapsed(config)
    assert {r.reason for r in q.report().rows if r.path == "good"} == {"keep_float='good'"}


def test_a_target_that_is_no_number_is_refused():
    with pytest.raises(TypeError):
        octavo.quantize(nn.Linear(8, 8), torch.randn(32, 8), config=Config(min_sqnr="high"))
