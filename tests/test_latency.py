import pytest
import torch
from torch import nn

import octavo
from networks import calls, make
from octavo import Config
from octavo.tune import latency


def rows(q):
    return {r.operator: (r.precision, r.reason) for r in q.report().rows}


@pytest.fixture
def measured(monkeypatch):
    """What a trial is said to take, of the time without it; counts the trials."""

    def always(ratio):
        def measure(a, b):
            trials.append((a(), b()))
            return ratio

        monkeypatch.setattr(latency, "time_ratio", measure)
        return trials

    trials = []
    return always


def test_what_measures_slower_as_int8_stays_float(measured):
    trials = measured(0.9)
    net, inputs = make("residual")
    q = octavo.quantize(net, calls(inputs), config=Config(optimize="latency"))
    assert len(trials) == 2  # add and the global average
    reason = "the model runs faster on this machine with add in float"
    assert rows(q)["add + relu"] == ("float", reason)
    assert rows(q)["adaptive_avg_pool2d"][0] == "float"
    assert rows(q)["conv2d + relu"] == ("int8", "")
    args, kwargs = inputs(3)
    assert octavo.sqnr(q(*args, **kwargs), q.compile()(*args, **kwargs)) > 35


def test_what_does_not_stays_int8(measured):
    trials = measured(0.99)
    net, inputs = make("residual")
    q = octavo.quantize(net, calls(inputs), config=Config(optimize="latency"))
    plain = octavo.quantize(net, calls(inputs))
    assert len(trials) == 2
    assert rows(q) == rows(plain)


def test_what_was_to_be_float_stays_so_and_is_not_tried(measured):
    trials = measured(0.99)
    net, inputs = make("residual")
    config = Config(optimize="latency", keep_float=["add"])
    q = octavo.quantize(net, calls(inputs), config=config)
    assert len(trials) == 1
    assert rows(q)["add + relu"] == ("float", "keep_float='add'")


def test_both_are_called_equally_often():
    counts = [0, 0]

    def call(i):
        counts[i] += 1

    assert latency.time_ratio(lambda: call(0), lambda: call(1)) > 0
    assert counts[0] == counts[1] >= 10


def test_a_model_of_convolutions_alone_has_nothing_to_try(measured):
    trials = measured(0.5)
    q = octavo.quantize(
        nn.Conv2d(3, 4, 3), torch.rand(4, 3, 8, 8), config=Config(optimize="latency")
    )
    assert trials == []
    assert q.report().int8_share == 1


def test_an_unknown_aim_is_refused():
    with pytest.raises(octavo.ConfigError, match="optimize='speed'"):
        Config(optimize="speed")
