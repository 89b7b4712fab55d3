import dataclasses

import pytest
import torch
from torch import nn

import octavo
from networks import calls, make
from octavo.bench import bench_table, compare_engines, latency, random_call


def test_three_ways_in_turns():
    net, inputs = make("residual")
    q = octavo.quantize(net, calls(inputs))
    results = compare_engines(net, q, inputs(2)[0][0], batch=2, rounds=3)
    assert [r.name for r in results] == ["PyTorch float", "OpenVINO float", "OpenVINO int8"]
    assert all(len(r.seconds) == 3 for r in results)
    assert results[0].sqnr == float("inf")
    assert results[1].sqnr > 80
    assert 20 < results[2].sqnr < 60
    assert results[2].size < results[0].size
    assert bench_table(results, 1234, 2).row_count == 3


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
