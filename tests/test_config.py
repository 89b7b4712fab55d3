import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

import octavo
from octavo import Config, ConfigError, SiteConfig
from octavo.config import as_config


def test_to_json_and_back():
    config = Config(observer="mse", keep_float=["a.*"], min_sqnr=3.5, measure_samples=2)
    assert Config.from_json(config.to_json()) == config


def test_settings_by_site_to_json_and_back():
    config = Config(sites={"head": SiteConfig("dynamic", group_size=32), 3: SiteConfig("float")})
    back = Config.from_json(config.to_json())
    assert back.sites == {"head": SiteConfig("dynamic", group_size=32), "3": SiteConfig("float")}


def test_from_toml():
    text = """
    observer = "minmax"
    keep_float = ["head"]
    [sites.Linear]
    activations = "dynamic"
    group_size = 32
    """
    sites = {"Linear": SiteConfig("dynamic", group_size=32)}
    assert Config.from_toml(text) == Config(observer="minmax", keep_float=["head"], sites=sites)


@pytest.mark.parametrize("text", ["x =", "colour = 1", "[sites.head]\nweights = 4"])
def test_toml_that_is_no_settings_is_refused(text):
    with pytest.raises(ConfigError, match=r"TOML|colour|weights=4"):
        Config.from_toml(text)


def test_it_is_frozen():
    with pytest.raises(AttributeError):
        Config().observer = "mse"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("observer", v) for v in ("max", None, 3, ["mse"])),
        *(("keep_float", v) for v in ("head", 3, nn.Linear, None, 2.0, {"head": 1}, nn.ReLU())),
        *(("keep_float", [v]) for v in (None, True, 1.5, nn.Linear(2, 2), ["head"])),
        *(("min_sqnr", v) for v in ("10", None, True, -1, math.nan, math.inf, [10])),
        *(("target_sqnr", v) for v in ("30", None, -0.5, math.inf, torch.tensor(30.0))),
        *(("activations", v) for v in ("float", None, True)),
        *(("sites", v) for v in (["head"], None, {"head": 8}, {"head": {"weights": 2}})),
        *(("optimize", v) for v in ("speed", None, True)),
        *((n, v) for n in ("equalize", "correct_biases", "round_weights") for v in ("no", 1, None)),
        *(("rounding_seconds", v) for v in (-1, "60", None, math.nan)),
        *(("reduce_range", v) for v in ("yes", 1, None, np.array([True, False]))),
        *((n, v) for n in ("tune_samples", "measure_samples") for v in (0, 1.5, "8", None, True)),
    ],
)
def test_bad_settings_are_refused(name, value):
    with pytest.raises(ConfigError, match=name):
        Config(**{name: value})


def test_numbers_of_numpy_are_numbers():
    config = Config(
        min_sqnr=np.float32(3.5),
        tune_samples=np.int64(4),
        rounding_seconds=math.inf,
        target_sqnr=30,
    )
    assert (config.min_sqnr, config.tune_samples, config.target_sqnr) == (3.5, 4, 30)
    assert Config.from_json(config.to_json()) == config


@pytest.mark.parametrize("text", ["", "{", "[]", "3", '"mse"'])
def test_text_that_is_no_settings_is_refused(text):
    with pytest.raises(ConfigError, match="JSON object"):
        Config.from_json(text)


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


def test_presets_are_what_their_names_say():
    assert as_config(None) == as_config("balanced") == Config()
    assert not (as_config("fast").correct_biases or as_config("fast").equalize)
    assert as_config("best").round_weights
    assert as_config(Config(min_sqnr=3)).min_sqnr == 3


@pytest.mark.parametrize("unknown", ["fastest", 3, {"observer": "mse"}])
def test_an_unknown_preset_is_refused_with_the_known_ones(unknown):
    with pytest.raises(ConfigError, match="'fast', 'balanced', 'best'"):
        as_config(unknown)


def test_quantize_takes_a_preset_by_name():
    q = octavo.quantize(nn.Linear(4, 2), torch.randn(8, 4), config="fast")
    assert q.config == as_config("fast")
    assert q.report().steps == ()


@given(
    st.sampled_from(["mse", "minmax"]), st.floats(0, 99), st.booleans(), st.text(min_size=1),
    st.sampled_from([math.inf, 1e9, 60.0])
)  # fmt: skip
def test_toml_and_back(observer, least, equalize, entry, seconds):
    sites = {entry: octavo.SiteConfig(activations="dynamic", group_size=32)}
    config = Config(observer=observer, min_sqnr=least, equalize=equalize, sites=sites,
                    keep_float=("head", entry), rounding_seconds=seconds)  # fmt: skip
    assert Config.from_toml(config.to_toml()) == config
