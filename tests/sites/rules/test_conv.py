import pytest
import torch
from torch import nn

import octavo
from octavo.graph import ops
from stages import quantize


def lam(fn):
    class Lambda(nn.Module):
        def forward(self, x):
            return fn(x)

    return Lambda()


CONVOLUTIONS = {
    "1d": (nn.Conv1d(8, 12, 3), (8, 16)),
    "2d": (nn.Conv2d(8, 12, 3, stride=2, padding=1), (8, 12, 12)),
    "3d": (nn.Conv3d(8, 12, 3), (8, 6, 6, 6)),
    "grouped": (nn.Conv2d(8, 12, 3, groups=4), (8, 12, 12)),
    "depthwise": (nn.Conv2d(8, 16, 3, groups=8, padding=1), (8, 12, 12)),
    "dilated": (nn.Conv2d(8, 12, 3, dilation=2), (8, 12, 12)),
    "same": (nn.Conv2d(8, 12, 4, padding="same"), (8, 12, 12)),
    "valid": (nn.Conv1d(8, 12, 4, padding="valid"), (8, 12)),
    "no bias": (nn.Conv2d(8, 12, 3, bias=False), (8, 12, 12)),
    "transposed 1d": (nn.ConvTranspose1d(8, 12, 4, 2, 1), (8, 12)),
    "transposed 2d": (nn.ConvTranspose2d(8, 12, 3, 2, 1, output_padding=1), (8, 6, 6)),
    "transposed grouped": (nn.ConvTranspose2d(8, 12, 3, groups=4), (8, 6, 6)),
    "linear": (nn.Linear(8, 12), (8,)),
    "linear 3-d": (nn.Linear(8, 12), (5, 8)),
}


@pytest.mark.parametrize("kind", CONVOLUTIONS)
def test_weighted_operators(kind):
    layer, shape = CONVOLUTIONS[kind]
    x = torch.randn(6, *shape) + 0.5
    q = octavo.quantize(layer, x, config="fast")
    (row,) = q.report().rows
    assert (row.precision, row.weight_bits, row.activation_bits) == ("int8", 8, 8)
    # the same by hand: fake quantized input and weight through the float layer
    low, high = min(0.0, x.min().item()), max(0.0, x.max().item())
    scale = (high - low) / 255
    fake_x = torch.fake_quantize_per_tensor_affine(x, scale, round(-low / scale), 0, 255)
    axis = 1 if kind.startswith("transposed") else 0
    largest = layer.weight.abs().amax([d for d in range(layer.weight.dim()) if d != axis])
    zeros = torch.zeros(len(largest), dtype=torch.int32)
    fake_w = torch.fake_quantize_per_channel_affine(
        layer.weight, largest / 127, zeros, axis, -127, 127
    )
    expected = torch.func.functional_call(layer, {"weight": fake_w}, fake_x)
    assert octavo.sqnr(expected, q(x)) > 50  # a value in a few thousand is on the other side of .5
    assert octavo.sqnr(q(x), q.compile()(x)) > 40


def test_integer_arithmetic_by_hand():
    """A linear layer's output is scale_x * scale_w * (integer dot product) + bias, exactly."""
    layer = nn.Linear(16, 3)
    x = torch.randn(5, 16) + 0.5
    q = octavo.quantize(layer, x, config="fast")
    tensors = dict(q.graph_module.named_buffers())
    s = next(v for k, v in tensors.items() if k.endswith(".scale"))
    z = next(v for k, v in tensors.items() if k.endswith(".zero_point"))
    qx = ops.quantize(x, s, z, 0, 255, torch.uint8).long() - z
    dot = qx @ tensors["weight_int8"].long().T
    expected = dot * s * tensors["weight_scale"] + layer.bias
    torch.testing.assert_close(q(x), expected)


ACTIVATIONS = {
    "relu": nn.ReLU(),
    "hardtanh": nn.Hardtanh(-0.5, 0.7),
    "hardtanh of relu6": nn.ReLU6(),
    "clamp": lam(lambda x: x.clamp(-0.3, 0.8)),
    "clamp from below": lam(lambda x: x.clamp(min=-0.3)),
    "leaky_relu": nn.LeakyReLU(0.2),
    "prelu": nn.PReLU(8),
    "hardswish": nn.Hardswish(),
    "silu": nn.SiLU(),
    "gelu": nn.GELU(),
    "gelu tanh": nn.GELU(approximate="tanh"),
    "sigmoid": nn.Sigmoid(),
    "hardsigmoid": nn.Hardsigmoid(),
    "tanh": nn.Tanh(),
}


@pytest.mark.parametrize("kind", ACTIVATIONS)
@pytest.mark.parametrize("layer", [nn.Conv2d(8, 8, 3), nn.ConvTranspose2d(8, 8, 2)], ids=["c", "t"])
def test_an_activation_fuses_where_it_follows(kind, layer):
    net = nn.Sequential(layer, ACTIVATIONS[kind], nn.Conv2d(8, 4, 1))
    x = torch.randn(4, 8, 8, 8)
    q = quantize(net, x)
    first, second = q.report().rows
    assert first.operator.endswith(" + " + kind.split()[0])
    assert {first.precision, second.precision} == {"int8"}
    assert octavo.sqnr(net(x), q(x)) > 28
    assert octavo.sqnr(q(x), q.compile()(x)) > 35


def test_an_image_of_other_channels_is_refused():
    q = octavo.quantize(nn.Conv2d(8, 12, 3), torch.rand(4, 8, 6, 6), config="fast")
    with pytest.raises(octavo.CaptureError, match="captured with shape"):
        q(torch.rand(4, 9, 6, 6))
