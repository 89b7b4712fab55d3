import pytest
import torch
from torch import nn

import octavo
from octavo.capture.export import capture

KINDS = (torch.float16, torch.bfloat16, torch.float64)


def network():
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 4, 1)).eval()


@pytest.mark.parametrize("dtype", KINDS)
def test_the_graph_is_in_float32_and_the_outputs_keep_their_type(dtype):
    net, x = network().to(dtype), torch.randn(2, 3, 8, 8).to(dtype)
    weight = net[0].weight
    graph, signature = capture(net, (x,))
    (flat,) = signature.flatten((x,), {})
    assert flat.dtype is torch.float32
    got = signature.unflatten(graph(flat))
    assert got.dtype is dtype
    exact = network()
    exact.load_state_dict({k: v.float() for k, v in net.state_dict().items()})
    torch.testing.assert_close(got, exact(x.float()).to(dtype))
    assert net[0].weight is weight and weight.dtype is dtype


@pytest.mark.parametrize("engine", ["reference", "openvino", "onnxruntime", "torch_int8"])
@pytest.mark.parametrize("dtype", KINDS)
def test_quantized_on_every_engine(dtype, engine, tmp_path):
    net = network().to(dtype)
    q = octavo.quantize(net, torch.randn(32, 3, 8, 8).to(dtype))
    assert "quantized as float32" in str(q.report())
    octavo.save(q, tmp_path / "m.octavo")
    x = torch.randn(2, 3, 8, 8).to(dtype)
    got = octavo.load(tmp_path / "m.octavo").compile(engine)(x)
    assert got.dtype is dtype
    assert octavo.sqnr(net(x).double(), got.double()) > 30


class Region(nn.Module):
    def __init__(self, whole):
        super().__init__()
        self.whole, self.a, self.b = whole, nn.Linear(16, 32), nn.Linear(32, 4)

    def forward(self, x):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            y = self.a(x).relu()
            if self.whole:
                return self.b(y)
        return self.b(y.float())


@pytest.mark.parametrize("whole", [False, True])
def test_layers_under_autocast_are_int8(whole):
    net, x = Region(whole).eval(), torch.randn(64, 16)
    q = octavo.quantize(net, x)
    assert q.report().int8_share == 1
    assert q(x).dtype is net(x).dtype
    assert octavo.sqnr(net(x).float(), q(x).float()) > 30


def test_a_cast_in_a_float32_model_stays():
    class Cast(nn.Module):
        def forward(self, x):
            return x.double() * (1 + 2.0**-40)

    graph, signature = capture(Cast(), (torch.ones(2, 3),))
    assert not signature.output_types
    assert graph(torch.ones(2, 3))[0].dtype is torch.float64
    assert (graph(torch.ones(2, 3))[0] != 1).all()


def test_half_inputs_of_a_model_without_parameters():
    class Gated(nn.Module):
        def forward(self, x):
            return nn.functional.hardswish(x @ x.transpose(1, 2)), nn.functional.silu(x)

    x = torch.randn(4, 3, 8).half()
    q = octavo.quantize(Gated(), [x], config="fast")
    assert [y.dtype for y in q(x)] == [torch.float16] * 2
    for y, expected in zip(q(x), Gated()(x), strict=True):
        assert octavo.sqnr(expected.float(), y.float()) > 25
