import pytest
from torch import nn

from octavo import ConfigError, SiteConfig
from octavo.site_config import FLOAT, as_site_configs


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("activations", v) for v in ("int8", True, 8)),
        *(("weights", v) for v in (4, "8", 8.0, True)),
        *(("group_size", v) for v in (-16, 20, 16.0, True, "64")),
        *(("per_channel", v) for v in (1, "no")),
        *(("observer", v) for v in ("max", 3)),
        *((n, v) for n in ("round_weights", "equalize") for v in ("no", 1)),
    ],
)
def test_bad_settings_are_refused(name, value):
    with pytest.raises(ConfigError, match=name):
        SiteConfig(**{name: value})


@pytest.mark.parametrize("activations", ["static", "dynamic"])
def test_integer_activations_need_integer_weights(activations):
    with pytest.raises(ConfigError, match="integer kernels need both"):
        SiteConfig(activations=activations, weights="float")


def test_settings_over_others():
    both = SiteConfig(observer="minmax", group_size=32).over(
        SiteConfig(activations="static", weights=8, observer="mse", group_size=64)
    )
    assert both == SiteConfig("static", 8, 32, observer="minmax")


def test_float_weights_make_activations_float():
    assert SiteConfig(weights="float").over(SiteConfig("static", 8)) == FLOAT


def test_integer_activations_make_weights_int8():
    assert SiteConfig("dynamic").over(FLOAT) == SiteConfig("dynamic", 8)


def test_keys_and_values_in_other_forms():
    found = as_site_configs({nn.Linear: {"activations": "dynamic"}, 3: SiteConfig("float")})
    assert found == {"Linear": SiteConfig("dynamic"), 3: SiteConfig("float")}


@pytest.mark.parametrize("sites", [None, ["head"], "head", {True: FLOAT}, {nn.ReLU(): FLOAT}])
def test_anything_but_a_dict_of_entries_is_refused(sites):
    with pytest.raises(ConfigError, match="sites"):
        as_site_configs(sites)


@pytest.mark.parametrize("value", [None, "float", 3, {"colour": 1}, {"weights": 4}])
def test_a_value_is_a_site_config(value):
    with pytest.raises(ConfigError, match="sites\\['head'\\]"):
        as_site_configs({"head": value})
