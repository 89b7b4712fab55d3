import subprocess
import sys

import numpy as np
import pytest
import torch

import octavo
from networks import images, wrong_in_threads
from octavo import CaptureError, EngineError
from octavo.engines.openvino.compiled import CompiledModel


@pytest.fixture(scope="module")
def residual(quantized):
    return quantized("residual")[0]


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


def test_more_shapes_than_are_compiled_apart(residual, monkeypatch):
    monkeypatch.setattr(CompiledModel, "shapes", 2)
    fast = residual.compile()
    for batch in (1, 2, 3, 4, 1, 5):
        x = images(batch)
        assert octavo.sqnr(residual(x), fast(x)) > 33
    assert len(fast.by_shape) == 3  # two static shapes and one model for any


def test_another_call_is_refused(residual):
    with pytest.raises(CaptureError, match="shape"):
        residual.compile()(np.zeros((1, 4, 16, 16), np.float32))


def test_a_model_that_openvino_does_not_compile(residual, monkeypatch):
    def fail(self, shapes):
        raise RuntimeError("no kernel")

    monkeypatch.setattr(CompiledModel, "_compile", fail)
    with pytest.raises(EngineError, match="cannot compile this model: no kernel"):
        residual.compile(check=False)(images(1))


DROPPED_IN_A_THREAD = """
import faulthandler, gc, os, signal, threading
import torch, octavo

faulthandler.enable()  # signals are handled on a stack of their own
held = [octavo.quantize(torch.nn.Linear(8, 8).eval(), [torch.rand(4, 8)]).compile()]
thread = threading.Thread(target=held.clear)
thread.start()
thread.join()
gc.collect()
signal.signal(signal.SIGUSR1, lambda *_: print("handled"))
os.kill(os.getpid(), signal.SIGUSR1)
"""


def test_signals_are_handled_after_another_thread_dropped_the_model():
    done = subprocess.run(
        [sys.executable, "-c", DROPPED_IN_A_THREAD], capture_output=True, text=True, check=True
    )
    assert done.stdout == "handled\n"
