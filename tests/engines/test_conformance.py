"""What every engine must do, over all networks: a new engine is tested by being registered."""

import importlib.util
from pathlib import Path

import pytest
import torch
from torch.utils._pytree import tree_leaves, tree_structure

import octavo
from networks import NETWORKS, calls, images, make, wrong_in_threads
from octavo import CaptureError, EngineError
from octavo.engines.base import ENGINES

# engine -> dB against the reference, over all networks
LEAST_SQNR = {"onnxruntime": 33, "openvino": 33, "reference": 200, "torch_int8": 50}
# onnxruntime requantizes convolution outputs that feed float operators, here at many layers: beyond
# what calibration saw it clips them, where the reference does not (docs/deploy.md)
CLIPPED = {("onnxruntime", "dense")}


def example(name):
    """A module of examples/."""
    path = Path(__file__).parents[2] / "examples" / f"{name}.py"
    spec = importlib.util.spec_from_file_location(f"example_{name}", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(params=LEAST_SQNR)
def engine(request):
    return request.param


@pytest.mark.parametrize("name", [*NETWORKS, "transformer, dynamic"])
def test_it_computes_what_the_reference_does_at_any_batch_size(name, engine, quantized):
    """A value of 8 bits that is rounded the other way is a step, 1/256 of its range, away."""
    q, inputs = quantized(name)
    fast = q.compile(engine)
    # not those that come after whatever was made before: the network may be made already
    torch.manual_seed(0)
    for batch in (1, 3, 8):
        args, kwargs = inputs(batch)
        if (engine, name) in CLIPPED:
            make(name)  # seeds: the inputs are those of its calibration
            args = (torch.cat([x for (x,) in calls(inputs)])[:batch],)
        expected, got = q(*args, **kwargs), fast(*args, **kwargs)
        assert tree_structure(got) == tree_structure(expected)
        for e, g in zip(tree_leaves(expected), tree_leaves(got), strict=True):
            assert (g.shape, g.dtype) == (e.shape, e.dtype)
        assert octavo.sqnr(expected, got) > LEAST_SQNR[engine]


def test_results_are_the_callers_own_and_inputs_are_left_as_they_are(engine, quantized):
    q, _ = quantized("residual")
    fast, x = q.compile(engine), images(2)
    given = x.clone()
    first = fast(given)
    kept = first.clone()
    assert torch.equal(given, x)
    fast(images(2))
    given.zero_()
    assert torch.equal(first, kept)


def test_memory_order_does_not_matter(engine, quantized):
    q, _ = quantized("residual")
    fast, x = q.compile(engine), images(3)
    assert torch.equal(fast(x.contiguous(memory_format=torch.channels_last)), fast(x))


def test_threads_do_not_mix_their_results(engine, quantized):
    q, _ = quantized("residual")
    fast, xs = q.compile(engine), [images(1 + i % 3) for i in range(4)]
    assert wrong_in_threads(fast, xs, rounds=20) == []


def test_no_gradients_and_inference_mode(engine, quantized):
    q, _ = quantized("residual")
    fast, x = q.compile(engine), images(2)
    assert not fast(x.clone().requires_grad_()).requires_grad
    with torch.inference_mode():
        assert octavo.sqnr(q(x), fast(x)) > 33


def test_another_call_is_refused(engine, quantized):
    q, _ = quantized("residual")
    fast = q.compile(engine)
    with pytest.raises(CaptureError, match="shape"):
        fast(torch.zeros(1, 4, 16, 16))
    with pytest.raises(CaptureError, match="cannot be called"):
        fast(images(1), images(1))


def test_unknown_options_are_refused(engine, quantized):
    with pytest.raises(EngineError, match=f"engine '{engine}' has no option 'speed'"):
        quantized("residual")[0].compile(engine, speed=11)


def test_one_from_outside_in_twenty_lines(quantized):
    q, inputs = quantized("structured")
    known = dict(ENGINES)
    try:
        example("engine")
        fast = q.compile("compiled", backend="eager")
        args, kwargs = inputs(3)
        assert octavo.sqnr(q(*args, **kwargs), fast(*args, **kwargs)) > 60
    finally:
        ENGINES.clear()
        ENGINES.update(known)


def test_all_engines_are_among_those_tested(quantized):
    with pytest.raises(EngineError, match=f"choose one of {', '.join(LEAST_SQNR)}"):
        quantized("residual")[0].compile("tensorflow")
