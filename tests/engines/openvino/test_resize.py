"""Interpolation and adaptive pooling of OpenVINO's table, against PyTorch."""

import openvino
import openvino.opset15 as ov
import pytest
import torch
import torch.nn.functional as F

from engines.openvino.operator_cases import Lambda, assert_like_pytorch, pictures
from octavo.capture.export import capture
from octavo.engines.base import compile_graph
from octavo.engines.openvino.build import Builder
from octavo.engines.openvino.compiled import CompiledModel
from octavo.engines.openvino.table import TABLE, Unsupported
from octavo.engines.openvino.values import scalar
from octavo.passes import run_passes

OPERATORS = {
    "adaptive_avg_pool": (lambda x: F.adaptive_avg_pool2d(x, (3, 4)), pictures),
    "adaptive_avg_pool uneven": (lambda x: F.adaptive_avg_pool2d(x, (4, 3)), pictures),
    "adaptive_avg_pool to one": (lambda x: F.adaptive_avg_pool2d(x, 1), pictures),
    "upsample nearest": (lambda x: F.interpolate(x, scale_factor=2.0), pictures),
    "upsample bilinear": (lambda x: F.interpolate(x, (9, 11), mode="bilinear"), pictures),
    "upsample to the corners": (
        lambda x: F.interpolate(x, (9, 11), mode="bilinear", align_corners=True),
        pictures,
    ),
}


@pytest.mark.parametrize("name", OPERATORS)
def test_operators_are_pytorchs(name, monkeypatch):
    assert_like_pytorch(monkeypatch, *OPERATORS[name])


def resized(**options):
    def fn(x):
        return F.interpolate(x, **options)

    return fn


FORMS = [
    *({"mode": "nearest", "scale_factor": s} for s in (0.29, 0.6, 0.7, 1.3, 2.5, 3.0)),
    *({"mode": "nearest-exact", "scale_factor": s} for s in (0.37, 0.7, 1.7)),
    *({"mode": m, "scale_factor": 0.6} for m in ("bilinear", "bicubic", "area")),
    *({"mode": m, "scale_factor": 1.3, "align_corners": True} for m in ("bilinear", "bicubic")),
    {"mode": "bilinear", "scale_factor": (1.5, 0.7), "recompute_scale_factor": True},
    *({"mode": m, "size": (1, 9)} for m in ("nearest", "bilinear", "bicubic", "area")),
]


@pytest.mark.parametrize("options", FORMS, ids=str)
def test_images_of_any_size_are_resized_as_pytorch_does(options, monkeypatch):
    """PyTorch rounds places in float32, and takes them from the factor that it is given."""
    fn = resized(**options)
    monkeypatch.setattr(CompiledModel, "shapes", 1)
    others = [((torch.randn(2, 3, 18, 9),), {})]
    graph, signature = run_passes(capture(Lambda(fn), (torch.randn(2, 3, 16, 12),), None, others))
    Builder(graph, signature).build()
    fast = compile_graph(graph, signature)
    for height, width in ((27, 15), (100, 31)):
        x = torch.randn(1, 3, height, width)
        torch.testing.assert_close(fast(x), fn(x), rtol=1e-4, atol=1e-4)


def test_a_factor_that_the_model_computes_is_not_the_tables():
    with pytest.raises(Unsupported, match="a factor that the model computes"):
        TABLE[torch.ops.aten.upsample_nearest2d](parameter(), None, [scalar(2), scalar(2)])


def parameter():
    return ov.parameter(openvino.PartialShape([-1, 3, -1, -1]), openvino.Type.f32).output(0)
