import pytest
import torch
from torch import nn
from torch.export import Dim

import octavo
from octavo import CaptureError, ConfigError
from octavo.capture.free_sizes import FreeSizes


class Net(nn.Module):
    """(time, batch, features), with a mask of (batch, time)."""

    def __init__(self):
        super().__init__()
        self.layer, self.head = nn.LSTM(8, 16), nn.Linear(16, 4)

    def forward(self, x, mask):
        y, _ = self.layer(x)
        return self.head(y) * mask.T.unsqueeze(-1)


def call(time, batch):
    return torch.randn(time, batch, 8), (torch.rand(batch, time) > 0.3).float()


TIME, BATCH = Dim("time"), Dim("batch")
SHAPES = {"x": {0: TIME, 1: BATCH}, "mask": {0: BATCH, 1: TIME}}


@pytest.mark.parametrize("shapes", [SHAPES, ({0: TIME, 1: BATCH}, {0: BATCH, 1: TIME})])
@torch.no_grad()
def test_sizes_that_the_user_gives_are_free_though_no_call_shows_it(shapes):
    net = Net().eval()
    q = octavo.quantize(net, [call(9, 4) for _ in range(4)], dynamic_shapes=shapes)
    assert [shape for _, shape in q.signature.inputs] == [(None, None, 8), (None, None)]
    assert q.signature.batch == (1, 0)
    for sizes in ((9, 4), (3, 1), (20, 7)):
        for engine in ("reference", "openvino"):
            inputs = call(*sizes)
            assert octavo.sqnr(net(*inputs), q.compile(engine)(*inputs)) > 25


def test_and_no_others():
    net = nn.Linear(8, 4).eval()
    data = [torch.randn(4, n, 8) for n in (5, 6)]
    q = octavo.quantize(net, data[:1], dynamic_shapes={"input": {0: Dim("batch")}})
    assert q.signature.inputs[0][1] == (None, 5, 8)
    with pytest.raises(octavo.DataError, match="calibration batches differ"):
        octavo.quantize(net, data, dynamic_shapes={"input": {0: Dim("batch")}})


@pytest.mark.parametrize("size, fits", [(2, False), (3, True), (6, True), (7, False)])
def test_bounds_are_kept(size, fits, tmp_path):
    shapes = {"input": {0: Dim("batch", min=3, max=6)}}
    q = octavo.quantize(nn.Linear(8, 4).eval(), torch.randn(4, 8), dynamic_shapes=shapes)
    octavo.save(q, tmp_path / "net.octavo")
    for model in (q, octavo.load(tmp_path / "net.octavo"), q.compile("openvino")):
        if fits:
            assert model(torch.randn(size, 8)).shape == (size, 4)
        else:
            with pytest.raises(CaptureError, match=r"condition input0\[0\] [<>]= [36]"):
                model(torch.randn(size, 8))


class Looped(nn.Module):
    def __init__(self):
        super().__init__()
        self.head = nn.Linear(8, 4)

    def forward(self, x):
        return torch.stack([self.head(row) * (i + 1) for i, row in enumerate(x)])


def test_sizes_that_the_model_fixes_are_refused():
    with pytest.raises(CaptureError):
        octavo.quantize(Looped(), torch.randn(4, 8), dynamic_shapes={"x": {0: Dim("batch")}})


@torch.no_grad()
def test_the_dimension_of_samples_may_be_given():
    net = nn.LSTM(8, 16).eval()
    data = [torch.randn(9, 4, 8) for _ in range(3)]
    q = octavo.quantize(net, data, batch_dim=1)
    assert q.signature.inputs[0][1] == (9, None, 8)
    assert q.signature.batch == (1,)
    x = torch.randn(9, 7, 8)
    assert octavo.sqnr(net(x)[0], q(x)[0]) > 25
    assert octavo.quantize(net, data).signature.inputs[0][1] == (None, 4, 8)


@torch.no_grad()
def test_there_may_be_none():
    net = nn.Linear(8, 4).eval()
    q = octavo.quantize(net, [torch.randn(5, 8)], batch_dim=None)
    assert q.signature.batch == () and q.signature.inputs[0][1] == (5, 8)


@pytest.mark.parametrize("settings", [{"batch_dim": "first"}, {"batch_dim": -1},
                                      {"batch_dim": True}, {"dynamic_shapes": 3}])  # fmt: skip
def test_anything_else_is_refused(settings):
    with pytest.raises(ConfigError, match=next(iter(settings))):
        FreeSizes(**settings)


def test_shapes_of_other_arguments_are_refused():
    with pytest.raises(ConfigError, match="'y', which is no argument of the call: it has input"):
        octavo.quantize(nn.Linear(8, 4), torch.randn(4, 8), dynamic_shapes={"y": {0: BATCH}})


def test_submodules_find_their_own():
    net = nn.Sequential(nn.Linear(8, 4))
    with pytest.raises(ConfigError, match="for whole models"):
        octavo.quantize(net, torch.randn(4, 8), submodules=["0"], batch_dim=1)
