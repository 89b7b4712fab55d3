import onnx
import pytest
import torch
import torch.nn.functional as F
from torch import nn

import octavo
from octavo import EngineError, FormatError
from octavo.engines.onnx import export
from octavo.engines.onnx.export import to_onnx

STRIDED = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU(), nn.Conv2d(8, 8, 3, 2, 1))
UNPADDED = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 4, 3))
POOLED = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.MaxPool2d(3, 2), nn.Conv2d(8, 4, 1))


def free_images(net):
    data = [torch.randn(2, 3, 32, 32), torch.randn(2, 3, 40, 48)]
    return octavo.quantize(net.eval(), data, config="fast")


@pytest.mark.parametrize("net", [STRIDED, UNPADDED, POOLED], ids=["strided", "unpadded", "pooled"])
def test_free_image_sizes_stay_free(net, tmp_path):
    q = free_images(net)
    to_onnx(q.graph_module, q.signature, tmp_path / "m.onnx")
    (given,) = onnx.load(tmp_path / "m.onnx").graph.input
    sizes = given.type.tensor_type.shape.dim
    assert [bool(d.dim_param) for d in sizes] == [True, False, True, True]
    fast = q.compile("onnxruntime")
    for shape in ((1, 3, 30, 51), (3, 3, 64, 33)):
        x = torch.randn(shape)
        assert fast(x).shape == q(x).shape
        assert octavo.sqnr(q(x), fast(x)) > 40


class Square(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, padding=1)

    def forward(self, x):
        y = self.conv(x)
        return y + y.mT


def test_sizes_may_depend_on_each_other():
    data = [torch.randn(2, 3, n, n) for n in (16, 20)]
    q = octavo.quantize(Square(), data, config="fast")
    fast, x = q.compile("onnxruntime"), torch.randn(1, 3, 27, 27)
    assert octavo.sqnr(q(x), fast(x)) > 40
    with pytest.raises(EngineError, match=r"cannot run this model .* \(1, 3, 27, 20\).*openvino"):
        fast(torch.randn(1, 3, 27, 20))


class Fixing(nn.Module):
    """An operator whose kernel makes numbers of sizes when it is traced."""

    def forward(self, x):
        theta = torch.eye(2, 3).expand(x.shape[0], 2, 3)
        return F.grid_sample(x, F.affine_grid(theta, x.shape, align_corners=False))


def test_a_size_that_becomes_fixed_is_an_error(in_onnx_runtime):
    data = torch.randn(2, 3, 16, 16), torch.randn(2, 3, 20, 24)
    message = r"with size \d of the input 'inputs_0' free: an operator fixes it to \d+; .* one size"
    with pytest.raises(EngineError, match=message):
        in_onnx_runtime(Fixing(), *data)


def test_a_computed_size_that_is_one_in_the_example_is_not_taken_for_one(in_onnx_runtime):
    """Half of 2 is 1, which would be 1 from then on: a longer example is taken."""
    data = torch.randn(2, 6, 16), torch.randn(2, 6, 20)
    net, fast = in_onnx_runtime(lambda x: F.avg_pool1d(x, 2) + 1, *data)
    x = torch.randn(3, 6, 14)
    torch.testing.assert_close(fast(x), net(x))


class Unknown(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(8, 8)
        self.choice = Kth()

    def forward(self, x):
        return self.choice(self.layer(x))


class Kth(nn.Module):
    def forward(self, x):
        return x.kthvalue(2, 1)[0]


def test_an_operator_without_translation_is_named_in_one_line(tmp_path):
    q = octavo.quantize(Unknown(), torch.randn(4, 8), config="fast")
    with pytest.raises(FormatError) as error:
        to_onnx(q.graph_module, q.signature, tmp_path / "m.onnx")
    assert str(error.value) == (
        "this model cannot be written as ONNX: torch.onnx has no translation for node 'kthvalue' "
        "(kthvalue) in module 'choice'; octavo.export to .xml and compile('openvino') need no ONNX"
    )


def test_examples_are_tried_until_one_fits_and_the_first_error_is_raised(tmp_path, monkeypatch):
    q = octavo.quantize(nn.Linear(8, 4), torch.randn(4, 8), config="fast")
    right = torch.zeros(2, 8)
    tried = iter([(torch.zeros(2, 7),), (torch.zeros(2, 6),), (right,), (torch.zeros(2, 5),)])
    monkeypatch.setattr(export, "examples", lambda signature: tried)
    to_onnx(q.graph_module, q.signature, tmp_path / "m.onnx")
    assert next(tried)[0].shape == (2, 5)
    monkeypatch.setattr(
        export, "examples", lambda signature: [(torch.zeros(2, 7),), (torch.zeros(2, 6),)]
    )
    with pytest.raises(FormatError, match=r"node 'linear' \(linear\): .* 7\] X \[8, 4\]"):
        to_onnx(q.graph_module, q.signature, tmp_path / "m.onnx")
