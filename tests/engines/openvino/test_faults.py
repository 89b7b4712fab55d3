"""Networks that OpenVINO's CPU plugin would compute wrongly, in the form that they get."""

import numpy as np
import openvino
import openvino.opset15 as ov
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils import _pytree as pytree

import octavo
from octavo.engines.openvino.arithmetic import TABLE
from octavo.engines.openvino.compiled import CompiledModel
from octavo.engines.openvino.faults import leaves_gaps
from octavo.engines.qdq import Quantize


class Layers(nn.Module):
    """Linear layers with a function after each, or products with matrices."""

    def __init__(self, widths, biases, fn, products=False):
        super().__init__()
        self.layers = nn.ModuleList(
            nn.Linear(*io, bias=b) for *io, b in zip(widths, widths[1:], biases, strict=False)
        )
        self.fn, self.products = fn, products

    def forward(self, x):
        for layer in self.layers[:-1]:
            x = self.fn(x @ layer.weight.T if self.products else layer(x))
        return self.layers[-1](x)


FUNCTIONS = {
    "relu": F.relu,
    "gelu": F.gelu,
    "none": lambda x: x,
    "clip": lambda x: x.clamp(-1, 1),
    "affine": lambda x: x * 0.5 + 1,
    "negative": lambda x: -x,
    "relu and affine": lambda x: (x * 0.5 + 1).relu(),
    "divided": lambda x: x / 3,
}


@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize("biases", [(True,) * 3, (False,) * 3, (True, False, True)], ids=str)
def test_small_layers_in_sequence(name, biases, tmp_path):
    """As one kernel, they gave zeros or 1e9 at batches up to 8."""
    net = Layers((24, 32, 16, 8), biases, FUNCTIONS[name]).eval()
    q = octavo.quantize(net, [torch.randn(32, 24) for _ in range(2)], config="fast")
    octavo.export(q, tmp_path / "net.xml")
    exported, fast = openvino.Core().read_model(tmp_path / "net.xml"), q.compile(threads=1)
    for batch in (1, 8):
        x = torch.randn(batch, 24)
        exported.reshape([batch, 24])
        settings = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 1}
        from_file = openvino.Core().compile_model(exported, "CPU", settings)(x.numpy())[0]
        assert octavo.sqnr(q(x), fast(x)) > 35
        assert octavo.sqnr(q(x), torch.from_numpy(from_file)) > 35


def test_products_with_matrices_in_sequence():
    net = Layers((24, 32, 16, 8), (False,) * 3, F.relu, products=True).eval()
    q = octavo.quantize(net, [torch.randn(32, 24) for _ in range(2)], config="fast")
    x = torch.randn(4, 24)
    assert octavo.sqnr(q(x), q.compile(threads=1)(x)) > 35


class Twice(nn.Module):
    def __init__(self, layer, fn):
        super().__init__()
        self.layer, self.fn = layer, fn

    def forward(self, x):
        return self.fn(self.layer(x))


@pytest.mark.parametrize(
    "fn",
    [
        lambda y: y * y,
        lambda y: torch.cat([y, y.relu()], 1),
        lambda y: y.flatten(2) * y.flatten(2).mean(-1, keepdim=True),
        lambda y: (y + 1, y.sigmoid()),
    ],
)
@pytest.mark.parametrize("layer", [nn.Conv1d(3, 8, 3, bias=False), nn.Conv2d(4, 8, 3, groups=2)])
def test_a_convolution_read_by_several_operators_at_any_shape(layer, fn, monkeypatch):
    """Without a bias, and compiled for any shape, its scales were applied twice."""
    monkeypatch.setattr(CompiledModel, "shapes", 1)
    if layer.bias is not None:
        layer.bias = None
    sizes = [9] * (layer.weight.dim() - 2)
    data = [torch.randn(8, layer.in_channels, *sizes) for _ in range(2)]
    q = octavo.quantize(Twice(layer, fn).eval(), data, config="fast")
    fast = q.compile()
    for batch in (2, 5):  # the second is compiled for any shape
        x = torch.randn(batch, layer.in_channels, *sizes)
        for got, expected in zip(*map(pytree.tree_leaves, (fast(x), q(x))), strict=True):
            assert octavo.sqnr(expected, got) > 35


@pytest.mark.parametrize(
    "product",
    [
        lambda x: x.transpose(-2, -1) @ x,
        lambda x: (x @ x) / 10,
        lambda x: torch.bmm(x, x) * 0.5,
    ],
)
@pytest.mark.parametrize(
    "fn",
    [
        lambda y: y * y,
        lambda y: (y.sum(-1), F.layer_norm(y, (12,))),
        lambda y: (y * 2.5, y.softmax(-1)),
        lambda y: (y.transpose(1, 2), y.sigmoid()),
    ],
)
def test_a_product_of_two_values_read_by_several_operators_at_any_shape(product, fn):
    """Its scales were applied twice."""
    data = [torch.randn(2, 12, 12) * 0.05 for _ in range(2)]
    q = octavo.quantize(Twice(product, fn), data, config="fast")
    fast = q.compile(check=False)
    fast.use_one_for_any_shape()
    x = torch.randn(3, 12, 12) * 0.05
    for got, expected in zip(*map(pytree.tree_leaves, (fast(x), q(x))), strict=True):
        assert octavo.sqnr(expected, got) > 90


@pytest.mark.parametrize(
    "fn",
    [
        lambda y: F.avg_pool1d(y, 2),
        lambda y: F.max_pool1d(y.relu(), 3, stride=2),
        lambda y: F.adaptive_avg_pool1d(y, 6),
        lambda y: F.interpolate(y, scale_factor=2),
        lambda y: F.avg_pool2d(y[:, None], (1, 2)).squeeze(1),
    ],
)
@pytest.mark.parametrize("way", ["layer", "product"])
def test_pools_over_channels_with_a_scale_each(fn, way):
    """Behind a layer without a bias, OpenVINO refused the network."""
    layer = nn.Linear(8, 12, bias=False)
    product = layer if way == "layer" else lambda x: x @ layer.weight.T.detach()
    data = [torch.randn(2, 6, 8) for _ in range(2)]
    q = octavo.quantize(Twice(product, fn).eval(), data, config="fast")
    fast = q.compile(check=False)
    for _ in range(2):
        x = torch.randn(3, 6, 8)
        assert octavo.sqnr(q(x), fast(x)) > 90
        fast.use_one_for_any_shape()


SIGNED = {
    "activation": lambda y, c: y.relu() * c,
    "its number": lambda y, c: -y,
    "clip": lambda y, c: (y * c).clamp(-1, 1),
    "quotient": lambda y, c: y.relu() / c,
    "moved": lambda y, c: (y * c).transpose(0, 1).relu().transpose(0, 1),
}


@pytest.mark.parametrize("name", SIGNED)
@pytest.mark.parametrize("shape", [(24,), (5, 24)], ids=str)
def test_products_with_negative_numbers(name, shape, monkeypatch):
    """Their signs were lost before a quantization, and behind an activation without a bias."""
    monkeypatch.setattr(CompiledModel, "shapes", 1)
    signs = torch.randn(32)
    for last in (nn.Identity(), nn.Linear(32, 8)):
        layer = Twice(nn.Linear(24, 32, bias=False), lambda y: SIGNED[name](y, signs))
        net = nn.Sequential(layer, last).eval()
        q = octavo.quantize(net, [torch.randn(32, *shape) for _ in range(3)], config="fast")
        fast = q.compile()
        for batch in (2, 5):  # the second is compiled for any shape
            x = torch.randn(batch, *shape)
            assert octavo.sqnr(q(x), fast(x)) > 35


@pytest.mark.parametrize("size", [1e-4, 1e-6, 1e-8])
def test_tiny_values_below_zero(size):
    """A lower bound below 1e-6 was taken for 0."""

    class Tiny(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 4, 1, bias=False)

        def forward(self, x):
            return self.b(F.silu(self.a(x) * 3) * size)

    q = octavo.quantize(Tiny(), [torch.randn(4, 3, 9, 9) for _ in range(4)], config="fast")
    bounds = [b.bounds for n in q.graph_module.graph.nodes if (b := Quantize.of(q.graph_module, n))]
    assert any(-size < low < 0 and high > -2 * low for low, high in bounds)
    x = torch.randn(2, 3, 9, 9)
    assert octavo.sqnr(q(x), q.compile()(x)) > 40


class Picked(nn.Module):
    """A few of the features of a multiple of what a convolution reads, shifted by channel."""

    def __init__(self, pick):
        super().__init__()
        self.conv, self.pick = nn.Conv1d(4, 4, 1), pick
        self.shift = nn.Parameter(torch.randn(4, 1))

    def forward(self, x):
        half = x * 0.5
        return self.pick((half + self.shift).flatten(1)), self.conv(half)


@pytest.mark.parametrize(
    "pick",
    [
        lambda y: y[:, 5],
        lambda y: y.relu()[:, [5, 7]],
        lambda y: y.index_select(1, torch.tensor([5, 6])),
        lambda y: y.unbind(1)[3],
    ],
)
def test_features_picked_of_shifted_channels(pick):
    """OpenVINO ended the process while compiling."""
    net, x = Picked(pick).eval(), torch.randn(11, 4, 8)
    q = octavo.quantize(net, [x], config="fast")
    for expected, got in zip(q(x), q.compile(check=False)(x), strict=True):
        torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "options",
    [
        {"kernel_size": 1, "stride": 2},
        {"kernel_size": 2, "stride": 3, "padding": 1, "output_padding": 1},
        {"kernel_size": (3, 2), "stride": (2, 3)},
    ],
)
def test_gaps_of_transposed_convolutions(options):
    """No weight reaches them: they are the bias, whatever was in memory."""
    net = nn.Sequential(
        nn.Conv2d(8, 8, 1), nn.ReLU(), nn.ConvTranspose2d(8, 8, **options), nn.Conv2d(8, 4, 1)
    ).eval()
    x = torch.randn(2, 8, 5, 6)
    q = octavo.quantize(net, x, config="fast")
    assert octavo.sqnr(q(x), q.compile(check=False)(x)) > 50


def test_the_end_of_an_output_padding():
    """As the gaps, but wrong numbers are rare: two values wide, at any shape, read by two."""
    settings = {"strides": [2, 2], "pads_end": [0, 1]}
    assert leaves_gaps([2, 2], {**settings, "output_padding": [1, 0]})
    assert leaves_gaps([3, 1], {**settings, "output_padding": [0, 0]})
    assert not leaves_gaps([2, 3], {**settings, "output_padding": [0, 1]})


@pytest.mark.parametrize("kind", [nn.ConvTranspose1d, nn.ConvTranspose2d])
@pytest.mark.parametrize(
    "options",
    [
        {"stride": 2},
        {"dilation": 2},
        {"stride": 2, "dilation": 2},
        {"padding": 2},
        {"padding": 3},
    ],
    ids=str,
)
def test_sums_of_large_products_in_transposed_convolutions(kind, options):
    """With stride and dilation, and with much padding, sums were cut at 32,767: 7 dB."""
    layer = kind(4, 8, 3, **{"padding": 1} | options)
    nn.init.constant_(layer.weight, 0.5)
    x = 0.9 + 0.1 * torch.rand(4, 4, *[8] * (layer.weight.dim() - 2))
    conv = nn.Conv1d if kind is nn.ConvTranspose1d else nn.Conv2d
    net = nn.Sequential(layer, conv(8, 4, 1)).eval()
    q = octavo.quantize(net, [x], config="fast")
    assert octavo.sqnr(q(x), q.compile(check=False)(x)) > 40


@pytest.mark.parametrize("pads", [(1, 2), (0, 1), (1, 1)], ids=str)
@pytest.mark.parametrize("length", [1, 2, 8])
def test_padding_before_a_kernel_of_one_point(pads, length):
    """More padding on one side ended the process at a batch of 1."""
    layers = nn.ConstantPad1d(pads, 0.0), nn.Conv1d(16, 16, 1), nn.Conv1d(16, 16, 3, padding=1)
    net = nn.Sequential(*layers).eval()
    x = torch.randn(4, 16, length)
    q = octavo.quantize(net, [x], config="fast")
    fast = q.compile(check=False)
    for batch in (1, 3):
        assert octavo.sqnr(q(x[:batch]), fast(x[:batch])) > 40


class AfterAttention(nn.Module):
    """An elementwise operator reads what attention makes; several read the result."""

    def __init__(self, fn):
        super().__init__()
        self.linear, self.fn = nn.Linear(8, 8), fn

    def forward(self, x):
        y = self.linear(x)
        z = self.fn((y @ y.mT / 3).softmax(-1) @ y, x)
        return z @ z.mT + z.mean()


@pytest.mark.parametrize(
    "fn",
    [
        lambda z, x: z / (x.abs() + 1),
        lambda z, x: z * x.relu(),
        lambda z, x: z.relu() - x.relu(),
        lambda z, x: (z * x.sigmoid() + 1) * x.relu(),
        lambda z, x: z + x,
    ],
)
def test_attention_before_an_elementwise_operator(fn, tmp_path):
    """The plugin joined them and ended the process, in Python or with the exported file."""
    q = octavo.quantize(AfterAttention(fn).eval(), [torch.randn(2, 11, 8)], config="fast")
    octavo.export(q, tmp_path / "net.xml")
    exported = openvino.Core().read_model(tmp_path / "net.xml")
    exported.reshape([2, 11, 8])
    openvino.Core().compile_model(exported, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    x = torch.randn(2, 11, 8)
    assert octavo.sqnr(q(x), q.compile(check=False)(x)) > 35


class Normalized(nn.Module):
    """A product, and the normalization of it or of a float multiple of the input."""

    def __init__(self, norm, of):
        super().__init__()
        self.norm, self.of = norm, of

    def forward(self, x):
        y = x.transpose(-2, -1) @ x
        return y.sum(-1), self.norm(self.of(x, y))


NORMALIZATIONS = {
    "layer norm": lambda x: F.layer_norm(x, (12,)),
    "over two dimensions": lambda x: F.layer_norm(x, (12, 12)),
    "with weight and bias": lambda x: F.layer_norm(x, (12,), torch.ones(12), torch.ones(12) / 3),
    "of four dimensions": lambda x: F.layer_norm(x.reshape(-1, 3, 4, 12), (12,)),
    "group norm": lambda x: F.group_norm(x, 3, torch.ones(12), torch.zeros(12)),
    "in one group": lambda x: F.group_norm(x, 1, torch.ones(12), torch.zeros(12)),
    "instance norm": F.instance_norm,
    "by hand": lambda x: (x - x.mean(-1, True)) / (x.var(-1, False, keepdim=True) + 1e-5).sqrt(),
    "rms norm": lambda x: F.rms_norm(x, (12,), eps=1e-5),
}
NORMALIZED = {
    "a product": lambda x, y: y,
    "a tenth of it": lambda x, y: y / 10,
    "its positive part": lambda x, y: y.relu(),
    "a multiple": lambda x, y: x * 0.01,
    "a square": lambda x, y: x.square() * 0.01,
    "an average": lambda x, y: (x * 0.01)[:, :, None].mean(2).transpose(1, 2),
    "a shifted product": lambda x, y: (y + 0.01) / 10,
    "zero more": lambda x, y: (y + 0.0) / 10,
}


@pytest.mark.parametrize(
    ("norm", "of"),
    [(norm, "a tenth of it") for norm in NORMALIZATIONS]
    + [("layer norm", of) for of in NORMALIZED if of != "a tenth of it"],
)
def test_small_numbers_are_normalized_with_the_epsilon_given(norm, of, tmp_path):
    """Of integers instead, which are larger, epsilon was too small: 9 dB."""
    net = Normalized(NORMALIZATIONS[norm], NORMALIZED[of])
    q = octavo.quantize(net, [torch.randn(2, 12, 12) * 0.05 for _ in range(2)], config="fast")
    x = torch.randn(2, 12, 12) * 0.05
    octavo.export(q, tmp_path / "net.xml")
    settings = {"INFERENCE_PRECISION_HINT": "f32"}
    exported = openvino.Core().compile_model(tmp_path / "net.xml", "CPU", settings)
    from_file = torch.from_numpy(exported(x.numpy())[1])
    assert octavo.sqnr(q(x)[1], q.compile(check=False)(x)[1]) > 90
    assert octavo.sqnr(q(x)[1], from_file) > 90


def test_the_epsilon_of_a_quantized_value_and_a_float_one():
    """OpenVINO divides the float value by the scale of the other, and moves it past the sum."""
    scale = 0.01
    low, high = np.float32(-128 * scale), np.float32(127 * scale)
    x = ov.parameter([4, 5, 8], np.float32).output(0)
    quantized = ov.fake_quantize(ov.sigmoid(x), low, high, low, high, 256)
    total = ov.add(quantized, ov.gelu(x, "erf")).output(0)
    normal = TABLE[torch.ops.aten.layer_norm](total, [8], None, None, 1e-3)
    model = openvino.Model([normal], [x.get_node()])
    values = torch.randn(4, 5, 8) * 0.1
    settings = {"INFERENCE_PRECISION_HINT": "f32"}
    (got,) = openvino.Core().compile_model(model, "CPU", settings)(values.numpy()).values()
    rounded = (values.sigmoid() / scale).round() * scale
    expected = F.layer_norm(rounded + F.gelu(values), (8,), eps=1e-3)
    assert octavo.sqnr(expected, torch.from_numpy(got)) > 80
