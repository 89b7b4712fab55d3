import pytest
import torch
from torch import nn

import octavo
from octavo import Config, ConfigError


def test_to_json_and_back():
    config = Config(observer="mse", keep_float=["a.*"], min_sqnr=3.5, measure_samples=2)
    assert Config.from_json(config.to_json()) == config


def test_it_is_frozen():
    with pytest.raises(AttributeError):
        Config().observer = "mse"


@pytest.mark.parametrize(
    "settings",
    [{"observer": "max"}, {"keep_float": "head"}, {"measure_samples": 0}],
)
def test_bad_settings_are_refused(settings):
    with pytest.raises(ConfigError, match=next(iter(settings))):
        Config(**settings)


def test_unknown_settings_in_json_are_refused():
    with pytest.raises(ConfigError, match="colour"):
        Config.from_json('{"colour": 1}')


def net():
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 36, 2))


@pytest.mark.parametrize(
    ("entry", "operators"),
    [
        ("0", {"conv2d + relu"}),
        ("[03]", {"conv2d + relu", "linear"}),
        ("linear", {"linear"}),
        ("conv?d", {"conv2d + relu"}),
    ],
)
def test_keep_float_by_path_and_operator(entry, operators):
    q = octavo.quantize(net(), torch.rand(4, 3, 8, 8), config=Config(keep_float=[entry]))
    kept = {r.operator for r in q.report().rows if r.reason.startswith("keep_float")}
    assert kept == operators


def test_a_rule_that_matches_nothing_lists_what_there_is():
    with pytest.raises(ConfigError, match=r"'classifier' matches no site.*conv2d.*linear"):
        octavo.quantize(net(), torch.rand(4, 3, 8, 8), config=Config(keep_float=["classifier"]))
