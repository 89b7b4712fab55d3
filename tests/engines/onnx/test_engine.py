import sys

import pytest
import torch
from torch import nn

import octavo
from networks import images
from octavo import EngineError, FormatError
from octavo.engines.onnx.export import to_onnx


@pytest.fixture(scope="module")
def residual(quantized):
    return quantized("residual")[0]


def test_threads_and_types_of_inputs(residual):
    x = images(2)
    fast = residual.compile("onnxruntime", threads=1)
    assert fast.session.get_session_options().intra_op_num_threads == 1
    assert torch.equal(fast(x.double()), fast(x))
    assert torch.equal(fast(x.numpy()), fast(x))
    assert octavo.sqnr(residual(x), fast(x)) > 35


def test_a_model_that_onnx_cannot_hold(tmp_path, monkeypatch):
    q = octavo.quantize(nn.Linear(4, 2), torch.rand(8, 4))

    def refuse(*_, **__):
        raise TypeError("no such operator\nin ONNX")

    monkeypatch.setattr(torch.onnx, "export", refuse)
    message = "cannot be written as ONNX: TypeError: no such operator; octavo.export to .xml"
    with pytest.raises(FormatError, match=message):
        to_onnx(q.graph_module, q.signature, tmp_path / "model.onnx")
    with pytest.raises(EngineError, match=message):
        q.compile("onnxruntime")


def test_without_onnx_it_says_how_to_get_it(residual, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(FormatError, match=r"pip install onnx onnxscript onnxruntime"):
        to_onnx(residual.graph_module, residual.signature, tmp_path / "model.onnx")
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(EngineError, match=r"pip install onnx onnxscript onnxruntime"):
        residual.compile("onnxruntime")
