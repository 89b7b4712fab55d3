import copy

import pytest
import torch
from torch import nn

import octavo
from networks import images
from octavo import CaptureError, ConfigError, DataError


class Detector(nn.Module):
    """Control flow that depends on values: it cannot be captured whole."""

    def __init__(self):
        super().__init__()
        self.backbone = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.ReLU())
        self.head = nn.Linear(8, 4)
        self.unused = nn.Linear(2, 2)

    def forward(self, x, twice=False):
        y = self.backbone(x)
        if y.mean() > 1e6:
            return y
        scores = self.head(y.mean((2, 3)))
        return {"scores": self.head(self.backbone(x * 0.5).mean((2, 3))) + scores, "map": y}


def quantize(net, **options):
    paths = options.pop("submodules", ["backbone", "head"])
    return octavo.quantize(net, [images(4) for _ in range(3)], submodules=paths, **options)


def test_parts_of_a_model_that_cannot_be_captured():
    net, x = Detector(), images(5)
    with pytest.raises(CaptureError, match=r"y\.mean"):
        octavo.quantize(net, [x])
    before = copy.deepcopy(net.state_dict())
    q = quantize(net)
    expected = net(x)
    for run in (q, q.compile(), q.compile("reference")):
        got = run(x)
        assert octavo.sqnr(expected["scores"], got["scores"]) > 25
        assert octavo.sqnr(expected["map"], got["map"]) > 25
    assert all(torch.equal(v, before[k]) for k, v in net.state_dict().items())
    assert isinstance(net.backbone, nn.Sequential)
    assert {path: r.int8_share for path, r in q.report().items()} == {"backbone": 1, "head": 1}


def test_a_part_is_a_quantized_model_that_can_be_saved(tmp_path):
    q, x = quantize(Detector()), torch.rand(2, 8)
    octavo.save(q.parts["head"], tmp_path / "head.octavo")
    assert torch.equal(octavo.load(tmp_path / "head.octavo")(x), q.parts["head"](x))


def test_settings_reach_the_parts():
    q = quantize(Detector(), config=octavo.Config(keep_float=["linear"]), submodules=["head"])
    assert q.report()["head"].int8_share == 0


@pytest.mark.parametrize(
    "paths, error, message",
    [
        (["backbon"], ConfigError, "there is no 'backbon'. Near names: backbone"),
        (["backbone", "backbone.0"], ConfigError, "'backbone.0' lies in 'backbone'"),
        ("backbone", ConfigError, "a list of paths"),
        ([], ConfigError, "a list of paths"),
        (["unused"], DataError, "'unused' was not called"),
    ],
)
def test_parts_that_cannot_be_quantized(paths, error, message):
    net = Detector()
    with pytest.raises(error, match=message):
        quantize(net, submodules=paths)
    assert not net.backbone._forward_pre_hooks


@pytest.mark.parametrize(
    "options",
    [{"groups": [0] * 8}, {"batch_dim": 1}, {"dynamic_shapes": {}}, {"evaluate": lambda m: 1.0}],
    ids=lambda options: next(iter(options)),
)
def test_what_is_for_whole_models(options):
    with pytest.raises(ConfigError, match="for whole models"):
        octavo.quantize(Detector(), images(1), submodules=["backbone"], **options)
