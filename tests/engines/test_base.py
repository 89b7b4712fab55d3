import sys

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

import octavo
from networks import NETWORKS, images, make, wrong_in_threads
from octavo import CaptureError, EngineError
from octavo.engines.base import ENGINES, register_engine
from octavo.engines.openvino.build import Builder
from octavo.engines.openvino.engine import CompiledModel, build, compile_graph
from octavo.engines.openvino.ops import Unsupported


@pytest.fixture(scope="module")
def residual(quantized):
    return quantized("residual")[0]


@pytest.mark.parametrize("name", NETWORKS)
def test_the_table_does_without_the_frontend(name, quantized):
    q, _ = quantized(name)
    built = Builder(q.graph_module, q.signature).build()
    assert len(built.get_parameters()) == len(q.signature.inputs)


@pytest.mark.parametrize("name", NETWORKS)
def test_a_float_graph_is_exact(name):
    net, inputs = make(name)
    args, kwargs = inputs(2)
    graph, signature = octavo.capture.export.capture(net, args, kwargs)
    fast = compile_graph(octavo.passes.tidy(graph), signature)
    assert octavo.sqnr(net(*args, **kwargs), fast(*args, **kwargs)) > 80


class Frontend(nn.Module):
    """topk is not in the table."""

    def __init__(self):
        super().__init__()
        self.conv, self.depthwise = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 3, groups=8)
        self.fc = nn.Linear(8, 5)

    def forward(self, x):
        y = self.depthwise(F.max_pool2d(F.relu(self.conv(x)), 2)).transpose(2, 3)
        return {"out": self.fc(torch.topk(y.mean((2, 3)), 8)[0])}


def test_a_graph_outside_the_table_goes_through_the_frontend():
    q = octavo.quantize(Frontend(), [images(4) for _ in range(4)])
    with pytest.raises(Unsupported, match="topk"):
        Builder(q.graph_module, q.signature).build()
    fast = q.compile()
    kinds = [n.get_type_name() for n in build(q.graph_module, q.signature).get_ordered_ops()]
    assert kinds.count("FakeQuantize") >= 3
    for batch in (1, 5):
        x = images(batch)
        assert octavo.sqnr(q(x), fast(x)) > 35


def test_it_runs_integer_kernels(residual):
    x = images(2)
    fast = residual.compile()
    fast(x)
    (compiled,) = fast.by_shape.values()
    runtime = compiled.get_runtime_model().get_ordered_ops()
    info = [n.get_rt_info() for n in runtime]
    kinds = [
        i["runtimePrecision"].astype(str)
        for i in info
        if i["layerType"].astype(str) == "Convolution"
    ]
    assert kinds == ["u8"] * 3 or kinds == ["i8"] * 3


def test_a_max_pool_after_an_int8_convolution_is_an_output_too():
    """Feature pyramids read it; made wrongly it comes out of the CPU plugin as zeros."""

    class Pyramid(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1)

        def forward(self, x):
            x = F.relu(self.a(x))
            y = F.relu(self.b(F.max_pool2d(x, 2)))
            return {"0": y, "pool": F.max_pool2d(y, 1, 2), "raw": F.max_pool2d(self.b(x), 2)}

    net = Pyramid()
    q = octavo.quantize(net, [images(4) for _ in range(4)])
    x = images(3)
    fast = q.compile()
    for key, expected in net(x).items():
        assert octavo.sqnr(expected, fast(x)[key]) > 28


def test_numpy_and_torch_in_torch_out(residual):
    x = images(2)
    fast = residual.compile()
    got = fast(x.numpy())
    assert isinstance(got, torch.Tensor)
    assert torch.equal(got, fast(x))
    assert torch.equal(got, fast(x.to(torch.float64)))
    assert torch.equal(got, fast(x.permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2)))


def test_threads_do_not_mix_their_results(residual):
    fast = residual.compile()
    assert wrong_in_threads(fast, [images(1 + i % 3) for i in range(6)], rounds=50) == []


def test_inputs_are_read_where_they_lie_and_left_as_they_are(residual):
    fast, memory = residual.compile(), torch.zeros(images(3).numel() + 1)
    unaligned = memory[1:].view_as(images(3))
    for _ in range(2):
        x = images(3)
        unaligned.copy_(x)
        expected = fast(x.clone())
        assert torch.equal(fast(unaligned), expected)
        assert torch.equal(fast(unaligned.double()), expected)
        assert torch.equal(unaligned, x)


@pytest.mark.parametrize("engine", ["openvino", "onnxruntime"])
def test_submitted_calls_give_futures(engine, residual):
    fast, xs = residual.compile(engine), [images(1 + i % 5) for i in range(20)]
    futures = [fast.submit(x) for x in xs]
    for x, future in zip(xs, futures, strict=True):
        assert torch.equal(future.result(), fast(x))
    with pytest.raises(CaptureError, match="shape"):
        fast.submit(torch.zeros(1, 4, 16, 16)).result()


def test_more_shapes_than_are_compiled_apart(residual, monkeypatch):
    monkeypatch.setattr(CompiledModel, "shapes", 2)
    fast = residual.compile()
    for batch in (1, 2, 3, 4, 1, 5):
        x = images(batch)
        assert octavo.sqnr(residual(x), fast(x)) > 33
    assert len(fast.by_shape) == 3  # two static shapes and one model for any


@pytest.mark.parametrize("options", [{"threads": 1}, {"hint": "throughput"}])
def test_options(residual, options):
    x = images(2)
    assert octavo.sqnr(residual(x), residual.compile(**options)(x)) > 33


def test_module_paths_are_the_nodes_names(residual):
    model = build(residual.graph_module, residual.signature)
    names = {n.get_friendly_name() for n in model.get_ordered_ops()}
    assert any(n.startswith("conv1/") for n in names)


def test_an_engine_of_ones_own(residual):
    @register_engine("eager")
    def eager(model, scale=1):
        return lambda *args: model(*args) * scale

    try:
        x = images(2)
        assert torch.equal(residual.compile("eager", scale=2)(x), residual(x) * 2)
    finally:
        del ENGINES["eager"]


@pytest.mark.parametrize(
    ("options", "message"),
    [({"thread": 2}, "takes: threads, hint"), ({"hint": "fast"}, "choose 'latency'")],
)
def test_unknown_options_are_refused(residual, options, message):
    with pytest.raises(EngineError, match=message):
        residual.compile(**options)


def test_without_openvino_it_says_how_to_get_it(residual, monkeypatch):
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(EngineError, match="pip install openvino"):
        residual.compile()


def test_another_call_is_refused(residual):
    with pytest.raises(CaptureError, match="shape"):
        residual.compile()(np.zeros((1, 4, 16, 16), np.float32))
