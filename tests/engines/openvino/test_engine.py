import sys

import pytest

import octavo
from networks import NETWORKS, images, make
from octavo import EngineError
from octavo.capture.export import capture
from octavo.engines.base import compile_graph
from octavo.passes import run_passes


@pytest.fixture(scope="module")
def residual(quantized):
    return quantized("residual")[0]


@pytest.mark.parametrize("name", NETWORKS)
def test_a_float_graph_is_exact(name):
    net, inputs = make(name)
    args, kwargs = inputs(2)
    fast = compile_graph(*run_passes(capture(net, args, kwargs)))
    assert octavo.sqnr(net(*args, **kwargs), fast(*args, **kwargs)) > 80


def test_it_runs_integer_kernels(residual):
    x = images(2)
    fast = residual.compile()
    fast(x)
    compiled = fast.by_shape[((2, 3, 16, 16),)]
    runtime = compiled.get_runtime_model().get_ordered_ops()
    info = [n.get_rt_info() for n in runtime]
    kinds = [
        i["runtimePrecision"].astype(str)
        for i in info
        if i["layerType"].astype(str) == "Convolution"
    ]
    assert kinds == ["u8"] * 3 or kinds == ["i8"] * 3


@pytest.mark.parametrize("options", [{"threads": 1}, {"hint": "throughput"}])
def test_options(residual, options):
    x = images(2)
    assert octavo.sqnr(residual(x), residual.compile(**options)(x)) > 33


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
