import dataclasses
import warnings
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

import octavo
from networks import Outlier
from octavo import CollapseWarning, Config
from octavo.search.fallback import Estimate, Fallback, Goal, fewest, goals_of


def collapsed(config):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        q = octavo.quantize(Outlier(), torch.randn(32, 8), config=config)
    return q, [w for w in caught if issubclass(w.category, CollapseWarning)]


def test_the_worst_site_alone_is_turned_float_with_a_warning():
    q, caught = collapsed(Config(equalize=False))
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
    q, caught = collapsed(Config(min_sqnr=0, equalize=False))
    assert caught == []
    assert q.report().int8_share == 1
    assert q.report().output_sqnr < 10


def test_no_warning_where_nothing_is_wrong():
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", CollapseWarning)
        octavo.quantize(nn.Linear(8, 8), torch.randn(32, 8))
    assert not [w for w in caught if issubclass(w.category, CollapseWarning)]


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


class Deep(nn.Module):
    """Six layers; the second rounds far worse than the others."""

    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(16, 16) for _ in range(6))
        with torch.no_grad():
            self.layers[1].weight[:, 0] = 30.0

    def forward(self, x):
        x = torch.cat([x[:, :1] * 0.01, x[:, 1:]], 1)
        for layer in self.layers:
            x = torch.tanh(layer(x))
        return x


def test_a_target_is_reached_with_the_sites_that_cost_most_float_and_no_warning():
    net, x = Deep(), torch.randn(64, 16)
    plain = octavo.quantize(net, x)
    target = plain.report().output_sqnr + 4
    with warnings.catch_warnings():
        warnings.simplefilter("error", CollapseWarning)
        q = octavo.quantize(net, x, target_sqnr=target)
    report = q.report()
    turned = [r for r in report.rows if "target_sqnr" in r.reason]
    assert report.output_sqnr >= target
    assert 1 <= len(turned) < 6
    assert report.steps[-1].method == f"{len(turned)} sites float"
    assert report.steps[-1].before < target <= report.steps[-1].after
    assert octavo.sqnr(net(x), q(x)) >= target


def test_one_site_fewer_would_not_do():
    net, x = Deep(), torch.randn(64, 16)
    target = octavo.quantize(net, x).report().output_sqnr + 4
    q = octavo.quantize(net, x, target_sqnr=target)
    turned = [r.site for r in q.report().rows if "target_sqnr" in r.reason]
    for again in turned:
        kept = [t for t in turned if t != again]
        fewer = octavo.quantize(net, x, config=Config(keep_float=kept))
        assert fewer.report().output_sqnr < target


def test_looking_without_tuning_first_finds_the_same_sites(monkeypatch):
    net, x = Deep(), torch.randn(64, 16)
    target = octavo.quantize(net, x).report().output_sqnr + 4
    reach, untuned = Fallback.reach, []

    def counted(self, *args):
        def noise(sites):
            untuned.append(self.untuned(sites))
            return untuned[-1]

        return reach(dataclasses.replace(self, untuned=noise), *args)

    def without(self, *args):
        return reach(dataclasses.replace(self, untuned=None), *args)

    rows = []
    for form in (counted, without):
        monkeypatch.setattr(Fallback, "reach", form)
        report = octavo.quantize(net, x, target_sqnr=target).report()
        rows.append([(r.site, r.reason) for r in report.rows])
    assert rows[0] == rows[1] and len(untuned) >= 2


def asked_for(answer, most, guess):
    asked = []

    def enough(count):
        asked.append(count)
        return count >= answer

    assert fewest(enough, most, guess) == answer
    assert len(set(asked)) == len(asked) and all(1 <= count < most for count in asked)
    return asked


@pytest.mark.parametrize("guess", [None, 0, 1, 7, 20, 21, 99])
@pytest.mark.parametrize("answer", [1, 2, 6, 7, 8, 13, 20])
def test_the_smallest_count_is_found_from_any_guess(answer, guess):
    assert len(asked_for(answer, 20, guess)) <= 9


def test_a_right_guess_needs_two_trials():
    assert asked_for(7, 50, 7) == [7, 6]
    assert asked_for(8, 50, 7) == [7, 8]
    assert asked_for(13, 50, None) == [25, 13, 7, 10, 12]  # bisection
    assert fewest(lambda count: False, 0) == 0


def result_of(sqnr):
    return SimpleNamespace(output=SimpleNamespace(ratio=10 ** (-sqnr / 10)))


def test_the_estimate_counts_the_sites_whose_noise_is_too_much():
    goal = Goal(lambda result: True, "", 20.0)  # a hundredth of the signal
    noise = {"a": 6.0, "b": 3.0, "c": 1.0}  # of 0.1 at 10 dB: 0.06, 0.03, 0.01
    estimate = Estimate.of(result_of(10.0), goal, noise)
    assert estimate.count(["a", "b", "c"]) == 2
    assert estimate.count(["c", "b", "a"]) == 3
    assert estimate.may_return("c", result_of(22.0))  # room for 0.0037, a third of 0.01 and more
    assert not estimate.may_return("b", result_of(22.0))
    assert Estimate.of(result_of(10.0), Goal(lambda result: True, ""), noise) is None
    assert Estimate.of(result_of(-torch.inf), goal, noise) is None


def test_the_users_own_number_decides():
    net, x = Deep(), torch.randn(64, 16)
    unseen = torch.randn(256, 16)
    labels = net(unseen)
    asked = []

    def evaluate(model):
        """Minus the noise, relative to the signal: 0 for the float model."""
        error = (model(unseen) - labels).square().sum() / labels.square().sum()
        asked.append(model)
        return -float(error)

    plain = octavo.quantize(net, x)
    allowed = -evaluate(plain) / 3
    asked.clear()
    q = octavo.quantize(net, x, evaluate=evaluate, max_drop=allowed)
    assert -evaluate(q) <= allowed * 1.05  # another engine
    assert all(isinstance(model, nn.Module) for model in asked)
    turned = [r for r in q.report().rows if "max_drop" in r.reason]
    assert 1 <= len(turned) < 6
    assert len(asked) < 20


def test_what_is_good_enough_already_stays_int8():
    net, x = Deep(), torch.randn(64, 16)
    q = octavo.quantize(net, x, target_sqnr=12, evaluate=lambda model: 1.0)
    assert q.report().int8_share == 1


def test_parts_are_not_evaluated_as_one():
    net = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 2))
    with pytest.raises(octavo.ConfigError, match="submodules"):
        octavo.quantize(net, torch.randn(8, 4), submodules=["0"], evaluate=lambda m: 1.0)


def test_an_evaluation_may_do_what_is_usual_with_a_model():
    net, x = nn.Linear(4, 2), torch.randn(8, 4)
    asked = []

    def evaluate(model):
        was_training = model.training
        model.eval()
        device = next(model.parameters()).device
        model.to(device)
        with torch.no_grad():
            asked.append(octavo.sqnr(net(x), model(x.to(device))))
        model.train(was_training)
        return 1.0

    octavo.quantize(net, x, evaluate=evaluate)
    assert len(asked) == 2  # the float model, and the quantized one, which is good enough
    assert min(asked) > 20


@pytest.mark.parametrize(
    "returned",
    [1, True, torch.tensor(1.0), torch.tensor([1.0]), np.float32(1), np.array(1.0), np.array([1])],
)
def test_one_number_in_any_form_is_a_number(returned):
    q = octavo.quantize(nn.Linear(4, 2), torch.randn(8, 4), evaluate=lambda model: returned)
    assert q.report().int8_share == 1


@pytest.mark.parametrize(
    ("returned", "shown"),
    [
        (None, "None"),
        ((1.0, 2.0), r"\(1.0, 2.0\)"),
        ("0.9", "'0.9'"),
        ({"accuracy": 0.9}, "{'accuracy': 0.9}"),
        (torch.ones(2), "tensor"),
        (np.ones(2), "array"),
        (1j, "1j"),
        (np.array(None), "None"),
        (float("nan"), "nan"),
        (float("inf"), "inf"),
        (torch.tensor(-torch.inf), "-inf"),
    ],
)
def test_what_is_not_one_number_is_refused(returned, shown):
    message = f"evaluate must return one number, higher is better; it returned {shown}"
    with pytest.raises(octavo.ConfigError, match=message):
        octavo.quantize(nn.Linear(4, 2), torch.randn(8, 4), evaluate=lambda model: returned)


def test_a_quantized_model_of_which_the_number_is_nan_does_not_do():
    net, x = nn.Linear(4, 2), torch.randn(8, 4)
    exact = net(x)

    def evaluate(model):
        return 1.0 if torch.allclose(model(x), exact, atol=1e-5) else float("nan")

    assert octavo.quantize(net, x, evaluate=evaluate).report().int8_share == 0


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"evaluate": 0.9}, "evaluate is a float: give a function"),
        ({"evaluate": nn.Linear(2, 2)(torch.ones(2))}, "evaluate is a Tensor"),
        ({"evaluate": len, "max_drop": -0.1}, "max_drop=-0.1"),
        ({"evaluate": len, "max_drop": "1%"}, "max_drop='1%'"),
        ({"evaluate": len, "max_drop": None}, "max_drop=None"),
        ({"evaluate": len, "max_drop": float("nan")}, "max_drop=nan"),
    ],
)
def test_what_no_evaluation_is(settings, message):
    with pytest.raises(octavo.ConfigError, match=message):
        octavo.quantize(nn.Linear(4, 2), torch.randn(8, 4), **settings)


def test_the_guard_that_is_off_stays_off_below_0_db():
    (goal,) = goals_of(Config(min_sqnr=0), None, 0.0, None, None)
    assert goal.met(SimpleNamespace(output=SimpleNamespace(sqnr=-3.0)))
    (goal,) = goals_of(Config(min_sqnr=1), None, 0.0, None, None)
    assert not goal.met(SimpleNamespace(output=SimpleNamespace(sqnr=-3.0)))
