import pytest
import torch
from torch import nn

import octavo
from octavo import Config, ConfigError, SiteConfig


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.up, self.norm, self.down = nn.Linear(8, 16), nn.LayerNorm(16), nn.Linear(16, 8)

    def forward(self, x):
        return self.down(self.norm(self.up(x)).relu())


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Linear(8, 8)
        self.blocks = nn.ModuleList([Block(), Block()])
        self.head = nn.Linear(8, 2)

    def forward(self, x):
        x = self.stem(x)
        for block in self.blocks:
            x = block(x)
        return self.head(x)


def kept(*entries):
    """Paths of the linear layers that the entries turn float."""
    config = Config(keep_float=entries, min_sqnr=0)
    q = octavo.quantize(Net(), torch.randn(16, 8), config=config)
    rows = [r for r in q.report().rows if "linear" in r.operator]
    return [r.path for r in rows if r.precision == "float"]


ALL = ["stem", "blocks.0.up", "blocks.0.down", "blocks.1.up", "blocks.1.down", "head"]


@pytest.mark.parametrize(
    "entry, expected",
    [
        ("head", ["head"]),
        ("blocks.*.up", ["blocks.0.up", "blocks.1.up"]),
        ("blocks.1", ["blocks.1.up", "blocks.1.down"]),
        ("linear", ALL),
        ("Block", ALL[1:5]),
        (Block, ALL[1:5]),
        (nn.Linear, ALL),
        ("re:(stem|head)", ["stem", "head"]),
        (0, ["stem"]),
        ("1", ["blocks.0.up"]),  # no module has this path
        ("linear_1", ["blocks.0.up"]),
    ],
)
def test_an_entry_names_sites(entry, expected):
    assert kept(entry) == expected


def test_numbers_are_those_of_the_report():
    q = octavo.quantize(Net(), torch.randn(16, 8))
    number = next(r.site for r in q.report().rows if r.path == "blocks.1.down")
    assert kept(number) == ["blocks.1.down"]


@pytest.mark.parametrize(
    "entry, message",
    [
        ("heads", "matches no site. Near names: head"),
        ("blocks.2.up", "blocks.1.up"),
        (nn.Conv2d, "keep_float='Conv2d' matches no site"),
        ("re:heed", "head"),
        ("re:(", "is no regular expression"),
        (99, "numbered 0 to"),
        (-1, "numbered 0 to"),
        ("99", "numbered 0 to"),
    ],
)
def test_an_entry_that_names_nothing_is_an_error(entry, message):
    with pytest.raises(ConfigError, match=message.replace("(", r"\(")):
        kept(entry)


def test_a_config_with_types_goes_to_json_and_back():
    config = Config(keep_float=[nn.LayerNorm, "head", 3])
    assert Config.from_json(config.to_json()) == config


# ---- settings by site


def as_set(sites, **settings):
    """path of each linear layer -> how it is quantized, as `activations/bits of the weight`."""
    config = Config(sites=sites, min_sqnr=0, **settings)
    q = octavo.quantize(Net(), torch.randn(16, 8), config=config)
    rows = [r for r in q.report().rows if "linear" in r.operator]
    return {r.path: f"{r.activations}/{r.weight_bits}" for r in rows}


def test_settings_of_what_an_entry_names():
    found = as_set({"blocks.0": SiteConfig("dynamic"), "head": SiteConfig("float")})
    expected = dict.fromkeys(ALL, "static/8")
    expected |= {"blocks.0.up": "dynamic/8", "blocks.0.down": "dynamic/8", "head": "float/8"}
    assert found == expected


def test_later_entries_win_field_by_field():
    found = as_set(
        {
            "*": SiteConfig("float", "float", observer="minmax"),
            nn.Linear: SiteConfig("dynamic"),
            "head": SiteConfig("static"),
        }
    )
    assert found == dict.fromkeys(ALL[:-1], "dynamic/8") | {"head": "static/8"}


def test_keep_float_wins():
    found = as_set({"head": SiteConfig("dynamic")}, keep_float=["head"])
    assert found["head"] == "float/None"


def test_dynamic_linear_layers_by_one_setting():
    found = as_set({"stem": SiteConfig("static")}, activations="dynamic")
    assert found == dict.fromkeys(ALL, "dynamic/8") | {"stem": "static/8"}


def test_sites_float_by_an_entry_say_so():
    config = Config(sites={"blocks.1": SiteConfig(weights="float")}, min_sqnr=0)
    rows = octavo.quantize(Net(), torch.randn(16, 8), config=config).report().rows
    found = {r.path for r in rows if r.reason == "sites['blocks.1']"}
    assert found == {"blocks.1.up", "blocks.1.norm", "blocks.1.down", "blocks.1"}  # a relu


def test_settings_of_what_is_not_there_are_an_error():
    with pytest.raises(ConfigError, match=r"sites\['blocs.0'\] matches no site.*blocks.0"):
        as_set({"blocs.0": SiteConfig("dynamic")})


def test_dynamic_activations_of_what_cannot_be_dynamic():
    with pytest.raises(ConfigError, match=r"sites\['LayerNorm'\] names no linear layer"):
        as_set({nn.LayerNorm: SiteConfig("dynamic")})


def test_dynamic_entries_give_recurrent_layers_int8_weights():
    net = nn.Sequential(nn.Conv1d(8, 8, 1), nn.Flatten(1, 1), nn.LSTM(8, 16))
    q = octavo.quantize(net, torch.randn(5, 8, 8), "dynamic")
    rows = {r.operator: (r.activations, r.weight_bits) for r in q.report().rows}
    assert rows["lstm"] == ("float", 8) and rows["conv1d"] == ("float", None)


def test_the_preset_needs_a_layer_that_it_is_for():
    with pytest.raises(ConfigError, match="matches no site"):
        octavo.quantize(nn.Conv2d(3, 4, 3), torch.randn(2, 3, 8, 8), "dynamic")
