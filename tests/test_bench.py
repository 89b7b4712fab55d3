import dataclasses

import pytest
import torch
from torch import nn

import octavo
from networks import calls, make
from octavo.bench import (
    OPENVINO,
    Result,
    bench_table,
    compare_engines,
    faster_engine,
    latency,
    random_call,
)


def test_three_ways_in_turns():
    net, inputs = make("residual")
    q = octavo.quantize(net, calls(inputs))
    results = compare_engines(net, q, inputs(2)[0][0], batch=2, rounds=3)
    names = ["PyTorch float", "OpenVINO float", OPENVINO, "ONNX Runtime int8", "PyTorch int8"]
    assert [r.name for r in results] == names
    assert all(len(r.seconds) == 3 for r in results)
    assert results[0].sqnr == float("inf")
    assert results[1].sqnr > 80
    assert 20 < results[2].sqnr < 60
    assert results[2].size < results[0].size
    assert all(r.sqnr > 20 for r in results)
    assert bench_table(results, 1234, 2).row_count == 5


@pytest.mark.parametrize(
    ("openvino", "onnx", "torch", "engine"),
    [(1.0, 0.9, 2.0, "onnxruntime"), (1.0, 1.5, 0.5, "torch_int8"), (1.0, 0.98, 1.0, "")],
)
def test_a_faster_engine_is_named(openvino, onnx, torch, engine):
    times = {OPENVINO: openvino, "ONNX Runtime int8": onnx, "PyTorch int8": torch}
    results = [Result("PyTorch float", [9e-3], 1, 0.0)]
    results += [Result(name, [1e-3 * ms], 1, 30.0) for name, ms in times.items()]
    note = faster_engine(results)
    assert note == "" if not engine else f'q.compile("{engine}")' in note
    assert faster_engine(results[:2]) == ""
    assert note in str(bench_table(results, 1, 1).caption)


def test_engines_that_do_not_run_the_model_are_left_out(monkeypatch):
    net, inputs = make("residual")
    q = octavo.quantize(net, calls(inputs), "fast")
    original = octavo.QuantizedModel.compile

    def compile(self, engine="openvino", **options):
        if engine == "torch_int8":
            raise octavo.EngineError("not on this processor")
        return original(self, engine, **options)

    monkeypatch.setattr(octavo.QuantizedModel, "compile", compile)
    results = compare_engines(net, q, inputs(2)[0][0], batch=2, rounds=1)
    assert [r.name for r in results][3:] == ["ONNX Runtime int8"]


def test_latency_in_a_report():
    net, inputs = make("residual")
    q = octavo.quantize(net, calls(inputs))
    found = latency(q, inputs(3)[0][0], threads=1)
    assert (found.engine, found.batch, found.threads) == ("OpenVINO", 3, 1)
    assert 0 < found.milliseconds < 1e4
    report = dataclasses.replace(q.report(), latency=found)
    assert octavo.Report.from_dict(report.to_dict()) == report
    assert f"{found.milliseconds:.3f} ms a call in OpenVINO (batch 3, threads: 1)" in str(report)


@pytest.mark.parametrize("name", ["residual", "structured"])
def test_random_inputs_fit_the_signature(name):
    net, inputs = make(name)
    q = octavo.quantize(net, calls(inputs))
    args, kwargs = random_call(q.signature, 3)
    shapes, expected = (
        [tuple(t.shape) for t in q.signature.flatten(*call)] for call in ((args, kwargs), inputs(3))
    )
    assert shapes == expected
    assert torch.utils._pytree.tree_leaves(q(*args, **kwargs))


def test_integer_inputs_are_valid_indices():
    net = nn.Sequential(nn.Embedding(5, 8), nn.Linear(8, 2))
    q = octavo.quantize(net, torch.randint(0, 5, (4, 3)))
    assert q(*random_call(q.signature, 2)[0]).shape == (2, 128, 2)


def test_data_the_model_cannot_take_is_refused():
    net, inputs = make("residual")
    q = octavo.quantize(net, calls(inputs))
    with pytest.raises(octavo.DataError, match="does not take this call"):
        compare_engines(net, q, torch.rand(2, 7, 16, 16), batch=2, rounds=1)
