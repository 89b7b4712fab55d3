import dataclasses
from collections import Counter

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import octavo
from networks import calls, images, make
from octavo import EngineError
from octavo.engines.torch_int8 import lowering as torch_lowering


def lowered(net, data):
    q = octavo.quantize(net, data, config=octavo.Config(min_sqnr=0, equalize=False))
    fast = q.compile("torch_int8")
    nodes = fast.graph_module.graph.nodes
    return q, fast, Counter(str(n.target) for n in nodes if n.op == "call_function")


def test_residual_blocks_run_in_integers_from_the_first_layer_to_the_pool():
    net, inputs = make("residual")
    q, fast, used = lowered(net, calls(inputs))
    assert used["onednn.qconv2d_pointwise.default"] == 2
    assert used["onednn.qconv2d_pointwise.binary"] == 1
    assert used["quantized.max_pool2d.default"] == used["onednn.qlinear_pointwise.default"] == 1
    floats = ("aten.conv", "octavo", "aten.relu", "aten.add", "aten.clone")
    assert not any(t.startswith(floats) for t in used)
    x = images(2)
    assert octavo.sqnr(q(x), fast(x)) > 60


class Streams(nn.Module):
    """A value is added to and read again afterwards, by a convolution and by an addition."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.c = (nn.Conv2d(8, 8, 3, padding=1) for _ in range(3))

    def forward(self, x):
        x = F.relu(self.a(x))
        y = F.relu(self.b(x) + x)
        z = F.relu(self.c(y) + x)
        return self.a(z + y)


def test_a_sum_overwrites_nothing_that_is_read_later():
    torch.manual_seed(0)
    q, fast, used = lowered(Streams(), [images(2, 8) for _ in range(4)])
    assert used["onednn.qconv2d_pointwise.binary"] > 0
    for _ in range(3):
        x = images(2, 8)
        assert octavo.sqnr(q(x), fast(x)) > 60


class Views(nn.Module):
    """The value that a sum is added to was given another shape, which is read after it."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Conv2d(8, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1)
        self.fc = nn.Linear(16, 3)

    def forward(self, x):
        x = F.relu(self.a(x))
        rows = x.flatten(2).transpose(1, 2).reshape(-1, 128, 16)
        y = F.relu(self.b(x) + x)
        return self.fc(rows), self.a(y)


def test_a_sum_overwrites_no_memory_that_a_view_shares():
    torch.manual_seed(0)
    q, fast, _ = lowered(Views().eval(), [images(2, 8) for _ in range(4)])
    x = images(2, 8)
    assert octavo.sqnr(q(x), fast(x)) > 60


@pytest.mark.parametrize("mode", ["constant", "reflect", "replicate"])
def test_padding_of_every_mode(mode):
    class Padded(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 4, 3)

        def forward(self, x):
            return self.b(F.pad(torch.tanh(self.a(x)), (1, 2, 0, 1), mode=mode))

    torch.manual_seed(0)
    q, fast, _ = lowered(Padded(), [images(2) for _ in range(4)])
    x = images(3)
    assert octavo.sqnr(q(x), fast(x)) > 60


class Pairs(nn.Module):
    """Additions and products of convolutions of the same and of other shapes."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(3, 8, 1)
        self.last = nn.Conv2d(16, 4, 1)

    def forward(self, x):
        a, b = F.relu(self.a(x)), F.relu(self.b(x))
        p, s = F.max_pool2d(a, 2) * F.max_pool2d(b, 2), F.max_pool2d(a + b, 2)
        return self.last(torch.cat([p * p.mean((2, 3), keepdim=True), F.pad(s, (0, 0))], 1))


def test_pairs_of_values_however_they_lie():
    torch.manual_seed(0)
    q, fast, _ = lowered(Pairs().eval(), [images(2) for _ in range(4)])
    x = images(5)
    assert octavo.sqnr(q(x), fast(x)) > 60


@pytest.mark.parametrize(
    ("activation", "fused"),
    [
        *((nn.ReLU(), True), (nn.ReLU6(), True), (nn.Hardswish(), True), (nn.SiLU(), True)),
        *((nn.GELU(), True), (nn.GELU("tanh"), True), (nn.Tanh(), True), (nn.LeakyReLU(), True)),
        *((nn.LeakyReLU(0.3), True), (nn.Sigmoid(), False), (nn.ELU(), False)),
    ],
    ids=str,
)
def test_activations_of_a_linear_layer(activation, fused):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(16, 32), activation, nn.Linear(32, 5)).eval()
    q, fast, used = lowered(net, torch.randn(64, 16))
    x = torch.randn(7, 16)
    assert octavo.sqnr(q(x), fast(x)) > 60
    assert used["onednn.qlinear_pointwise.default"] == 2
    assert used.total() == 3 if fused else used.total() > 3  # two kernels and one rounding


@pytest.mark.parametrize("shape", [(16,), (3, 16), (2, 3, 16)])
def test_linear_layers_of_any_rank_and_memory_order(shape):
    class Turned(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(16, 16), nn.Linear(16, 4)

        def forward(self, x):
            y = self.a(x)
            return self.b(y.transpose(0, -2) if y.dim() > 2 else y)

    torch.manual_seed(0)
    q, fast, _ = lowered(Turned(), [torch.randn(2, *shape) for _ in range(8)])
    x = torch.randn(2, *shape)
    assert octavo.sqnr(q(x), fast(x)) > 50  # a few values of integers may round the other way


@pytest.mark.parametrize("zero_point", [0, 37, 255])
def test_rounding_is_that_of_the_operator(zero_point):
    x, scale = torch.randn(1000) * 8, torch.tensor(0.0371)
    expected = octavo.graph.ops.quantize(x, scale, torch.tensor(zero_point), 0, 255, torch.uint8)
    got = torch_lowering.quantize(x, scale.item(), zero_point)
    assert torch.equal(got, expected)
    back = octavo.graph.ops.dequantize(expected, scale, torch.tensor(zero_point))
    torch.testing.assert_close(torch_lowering.dequantize(got, scale.item(), zero_point), back)


def test_a_model_of_which_no_example_runs():
    q = octavo.quantize(nn.Linear(4, 2), torch.rand(8, 4))
    other = dataclasses.replace(q.signature, inputs=(("float32", (None, 5)),), shapes=())
    with pytest.raises(EngineError, match="no example of the model's inputs runs"):
        torch_lowering.lower(q.graph_module, other)
