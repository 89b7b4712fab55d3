"""Operators in the form that known sizes allow, against PyTorch's."""

import openvino
import openvino.opset15 as ov
import pytest
import torch
import torch.nn.functional as F
from torch import nn

import octavo
from engines.openvino.operator_cases import Lambda
from octavo.bench import profile
from octavo.capture.export import capture
from octavo.engines.openvino.compiled import CompiledModel
from octavo.engines.openvino.convert import build
from octavo.engines.openvino.known_sizes import LARGEST, rewrite_for_known_sizes
from octavo.passes import run_passes


def kinds(model):
    return {node.get_type_name() for node in model.get_ops()}


def roundings(model):
    pools = [node for node in model.get_ops() if node.get_type_name() == "MaxPool"]
    return {node.get_attributes()["rounding_type"] for node in pools}


def rewritten(model, *shape):
    """The kinds of operators after the rewrite, of a model made for this shape."""
    model.reshape(list(shape))
    rewrite_for_known_sizes(model)
    return kinds(model)


def converted(fn, x):
    return run_passes(capture(Lambda(fn), (x,)))


# ---- interpolation at the end


@pytest.mark.parametrize("align", [False, True])
@pytest.mark.parametrize("size", [(56, 40), (65, 33), (5, 3), (1, 1), (7, 100)], ids=str)
@pytest.mark.parametrize("shape", [(1, 3, 8, 5), (4, 1, 7, 1), (2, 21, 13, 16)], ids=str)
def test_an_output_is_resized_as_pytorch_does(shape, size, align):
    x = torch.randn(shape)

    def fn(x):
        return F.interpolate(x, size, mode="bilinear", align_corners=align)

    graph, signature = converted(fn, x)
    model = build(graph, signature)
    assert "Interpolate" not in rewritten(model.clone(), *shape)
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
    assert "Interpolate" in rewritten(build(*converted(fn, x)), *x.shape)


def test_a_model_of_free_sizes_stays_as_it_is():
    x = ov.parameter(openvino.PartialShape([-1, 3, -1, -1]), openvino.Type.f32)
    y = ov.interpolate(x, [9, 9], "linear_onnx", "sizes", axes=[2, 3])
    model = openvino.Model([y], [x])
    rewrite_for_known_sizes(model)
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


# ---- max pooling that rounds up

POOLS = [
    *({"kernel_size": 3, "stride": s, "padding": p} for s in (1, 2, 3) for p in (0, 1)),
    {"kernel_size": 2, "stride": 3, "padding": 1},  # the last window would start in the padding
    {"kernel_size": (3, 2), "stride": (2, 3), "padding": (1, 0)},
    {"kernel_size": 2, "stride": 2, "dilation": 3},
]


@pytest.mark.parametrize("options", POOLS, ids=str)
def test_pooling_that_rounds_up_is_pytorchs(options):
    def fn(x):
        return F.max_pool2d(x, ceil_mode=True, **options)

    first = torch.randn(2, 3, 11, 14)
    graph, signature = run_passes(
        capture(Lambda(fn), (first,), None, [((torch.randn(1, 3, 9, 12),), {})])
    )
    model = build(graph, signature)
    fast = CompiledModel(model, signature, {"INFERENCE_PRECISION_HINT": "f32"})
    for height in range(7, 14):
        x = -torch.rand(2, 3, height, height + 1) - 1  # a border of zeros would be noticed
        fixed = model.clone()
        fixed.reshape(list(x.shape))
        rewrite_for_known_sizes(fixed)
        assert roundings(fixed) == {"floor"}
        assert torch.equal(fast(x), fn(x))


def test_of_a_free_size_it_stays_and_of_a_known_size_with_a_free_batch_it_does_not():
    def fn(x):
        return F.max_pool2d(x, 3, 2, ceil_mode=True)

    x = torch.randn(2, 3, 11, 14)
    free = build(*run_passes(capture(Lambda(fn), (x,), None, [((x[..., 1:],), {})])))
    batches = build(*run_passes(capture(Lambda(fn), (x,), None, [((x[:1],), {})])))
    assert (roundings(free), roundings(batches)) == ({"ceil_torch"}, {"floor"})


def test_indices_of_pooling_stay_with_it():
    x = ov.parameter([1, 3, 11, 14], openvino.Type.f32)
    pool = ov.max_pool(x, [2, 2], [1, 1], [0, 0], [0, 0], [3, 3], "ceil_torch")
    model = openvino.Model([pool.output(0), pool.output(1)], [x])
    rewrite_for_known_sizes(model)
    assert roundings(model) == {"ceil_torch"}


class Pooled(nn.Module):
    def __init__(self):
        super().__init__()
        self.before, self.after = nn.Conv2d(3, 16, 3, 1, 1), nn.Conv2d(16, 16, 1)

    def forward(self, x):
        return self.after(F.max_pool2d(self.before(x).relu(), 3, 2, ceil_mode=True))


def test_pooling_that_rounds_up_keeps_integers():
    q = octavo.quantize(Pooled().eval(), [torch.rand(4, 3, 32, 32)] * 2)
    x = torch.rand(2, 3, 32, 32)
    operators = profile(q, x)
    (pool,) = (o for o in operators if o.kind == "Pooling")
    assert (pool.reads, pool.gives) == ("u8", "u8")
    assert octavo.metrics.sqnr(q.compile("reference")(x), q.compile()(x)) > 45
