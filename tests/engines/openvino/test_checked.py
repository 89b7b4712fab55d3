import openvino.opset15 as ov
import pytest
import torch
from torch import nn

import octavo
from octavo import EngineError, PartitionWarning
from octavo.engines.openvino.checked import compile_checked
from octavo.engines.openvino.compiled import CompiledModel
from octavo.engines.openvino.table import TABLE

aten = torch.ops.aten


@pytest.fixture(scope="module")
def q():
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(3, 8, 3),
        nn.Mish(),
        nn.Conv2d(8, 8, 3),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(128, 4),
    )
    return octavo.quantize(net.eval(), torch.randn(16, 3, 8, 8), config="fast")


def test_an_operator_that_openvino_computes_wrongly_runs_in_pytorch(q, monkeypatch):
    monkeypatch.setitem(TABLE, aten.mish, lambda x: ov.relu(x))
    with pytest.warns(PartitionWarning, match="1/mish.*computes something else.*other numbers"):
        fast = q.compile()
    assert "1/mish" in fast.in_pytorch
    assert not any("conv" in name for name in fast.in_pytorch)
    x = torch.randn(5, 3, 8, 8)
    assert octavo.sqnr(q(x), fast(x)) > 30


def test_an_operator_of_another_shape_runs_in_pytorch(q, monkeypatch):
    monkeypatch.setitem(TABLE, aten.flatten, lambda x, *_: ov.reshape(x, [-1, 64], False))
    with pytest.warns(PartitionWarning, match="4/flatten"):
        fast = q.compile()
    x = torch.randn(5, 3, 8, 8)
    assert octavo.sqnr(q(x), fast(x)) > 30


def test_without_the_check_it_is_not_noticed(q, monkeypatch):
    monkeypatch.setitem(TABLE, aten.mish, lambda x: ov.relu(x))
    x = torch.randn(5, 3, 8, 8)
    assert octavo.sqnr(q(x), q.compile(check=False)(x)) < 20


def test_kernels_for_fixed_shapes_that_are_wrong_are_not_used(q, monkeypatch):
    run = CompiledModel.run

    def wrong_for_fixed_shapes(self, inputs):
        outputs = run(self, inputs)
        return outputs if self.shapes == 0 else [o + 1e9 for o in outputs]

    monkeypatch.setattr(CompiledModel, "run", wrong_for_fixed_shapes)
    with pytest.warns(PartitionWarning, match="kernels for fixed shapes, on inputs of shape"):
        fast = q.compile()
    x = torch.randn(5, 3, 8, 8)
    assert octavo.sqnr(q(x), fast(x)) > 30


def test_what_stays_wrong_is_refused(q, monkeypatch):
    from octavo.engines.openvino import checked

    monkeypatch.setattr(checked, "disagreement", lambda *args: (q.signature.examples(())[0], "no"))
    with pytest.raises(EngineError, match="something else than the reference: no"):
        compile_checked(q, {}, check=True)


@pytest.mark.parametrize("engine", ["torch_int8", "onnxruntime"])
def test_other_engines_are_checked_too(q, engine, monkeypatch):
    monkeypatch.setattr("octavo.engines.base.difference", lambda *args: "other numbers")
    with pytest.raises(EngineError, match=f"'{engine}' computes something else.*other numbers"):
        q.compile(engine)
    q.compile(engine, check=False)
