"""Interpolation that only outputs read, against PyTorch's."""

import openvino
import openvino.opset15 as ov
import pytest
import torch
import torch.nn.functional as F
from torch import nn

import octavo
from engines.openvino.operator_cases import Lambda
from octavo.capture.export import capture
from octavo.engines.openvino.compiled import CompiledModel
from octavo.engines.openvino.convert import build
from octavo.engines.openvino.last_resize import LARGEST, resize_last_by_products
from octavo.passes import run_passes


def kinds(model):
    return {node.get_type_name() for node in model.get_ops()}


def resized(model, *shape):
    """The kinds of operators after the rewrite, of a model made for this shape."""
    model.reshape(list(shape))
    resize_last_by_products(model)
    return kinds(model)


def converted(fn, x):
    return run_passes(capture(Lambda(fn), (x,)))


@pytest.mark.parametrize("align", [False, True])
@pytest.mark.parametrize("size", [(56, 40), (65, 33), (5, 3), (1, 1), (7, 100)], ids=str)
@pytest.mark.parametrize("shape", [(1, 3, 8, 5), (4, 1, 7, 1), (2, 21, 13, 16)], ids=str)
def test_an_output_is_resized_as_pytorch_does(shape, size, align):
    x = torch.randn(shape)

    def fn(x):
        return F.interpolate(x, size, mode="bilinear", align_corners=align)

    graph, signature = converted(fn, x)
    model = build(graph, signature)
    assert "Interpolate" not in resized(model.clone(), *shape)
    fast = CompiledModel(model, signature, {"INFERENCE_PRECISION_HINT": "f32"})
    torch.testing.assert_close(fast(x), fn(x), rtol=1e-5, atol=1e-5)


STAY = {
    "read by an operator": (lambda x: F.interpolate(x, (9, 9), mode="bilinear").relu(), 8),
    "an output that is also read": (
        lambda x: ((y := F.interpolate(x, (9, 9), mode="bilinear")), y.relu()),
        8,
    ),
    "nearest": (lambda x: F.interpolate(x, scale_factor=2.0), 8),
    "bicubic": (lambda x: F.interpolate(x, scale_factor=2.0, mode="bicubic"), 8),
    "large": (lambda x: F.interpolate(x, scale_factor=2.0, mode="bilinear"), LARGEST + 1),
}


@pytest.mark.parametrize("name", STAY)
def test_others_stay_as_they_are(name):
    fn, size = STAY[name]
    x = torch.randn(1, 2, size, size)
    assert "Interpolate" in resized(build(*converted(fn, x)), *x.shape)


def test_a_model_of_free_sizes_stays_as_it_is():
    x = ov.parameter(openvino.PartialShape([-1, 3, -1, -1]), openvino.Type.f32)
    y = ov.interpolate(x, [9, 9], "linear_onnx", "sizes", axes=[2, 3])
    model = openvino.Model([y], [x])
    resize_last_by_products(model)
    assert "Interpolate" in kinds(model)


class Segment(nn.Module):
    """Classes of each pixel, resized to the image's size."""

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU(), nn.Conv2d(8, 5, 1))

    def forward(self, x):
        return F.interpolate(self.layers(x), x.shape[2:], mode="bilinear")


def test_a_quantized_network_agrees_with_its_reference():
    net = Segment().eval()
    data = [torch.randn(4, 3, 32, 32) for _ in range(4)]
    q = octavo.quantize(net, [data[0], torch.randn(2, 3, 48, 40), *data])
    reference, fast = q.compile("reference"), q.compile()
    for shape in ((1, 3, 32, 32), (3, 3, 48, 40), (2, 3, 64, 24)):
        x = torch.randn(shape)
        assert octavo.metrics.sqnr(reference(x), fast(x)) > 35
        assert octavo.metrics.sqnr(net(x), fast(x)) > 25
