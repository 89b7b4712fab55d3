import copy
import dataclasses
import multiprocessing
import pickle
from concurrent.futures import ProcessPoolExecutor
from types import SimpleNamespace

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader

import octavo
from networks import images
from octavo import CaptureError, EngineError
from octavo.capture.export import capture
from octavo.engines.base import (
    ENGINES,
    EngineModel,
    GraphProgram,
    compile_graph,
    compile_program,
    disagreement,
    examples,
    register_engine,
)
from octavo.engines.torch_int8.engine import TorchInt8
from samples import Outputs, answer, serve


@pytest.fixture(scope="module")
def residual(quantized):
    return quantized("residual")[0]


@pytest.mark.parametrize("engine", ["openvino", "onnxruntime"])
def test_submitted_calls_give_futures(engine, residual):
    fast, xs = residual.compile(engine), [images(1 + i % 5) for i in range(20)]
    futures = [fast.submit(x) for x in xs]
    for x, future in zip(xs, futures, strict=True):
        assert torch.equal(future.result(), fast(x))
    with pytest.raises(CaptureError, match="shape"):
        fast.submit(torch.zeros(1, 4, 16, 16)).result()


def test_an_engine_of_ones_own(residual):
    @register_engine("eager")
    def eager(model, scale=1):
        return lambda *args: model(*args) * scale

    try:
        x = images(2)
        assert torch.equal(residual.compile("eager", scale=2)(x), residual(x) * 2)
    finally:
        del ENGINES["eager"]


def test_an_engine_that_is_not_known(residual):
    with pytest.raises(EngineError, match="unknown engine 'tensorflow': choose one of"):
        residual.compile("tensorflow")


def test_any_graph_is_compiled_with_its_signature():
    net, x = nn.Linear(4, 2).eval(), torch.rand(3, 4)
    fast = compile_graph(*capture(net, (x,)), threads=1)
    torch.testing.assert_close(fast(x), net(x))
    with pytest.raises(EngineError, match="has no option 'thread'"):
        compile_graph(*capture(net, (x,)), thread=1)


@pytest.mark.parametrize(
    ("shape", "sizes"),
    [((None, None, 3), [(2, 2, 3), (3, 64, 3), (4, 4096, 3)]), ((None, 3), [(2, 3), (3, 3)])],
    ids=["free length", "free batch"],
)
def test_examples_of_several_lengths_where_one_is_free(shape, sizes):
    signature = octavo.capture.signature.Signature((), None, None, (), (("float32", shape),))
    assert [tuple(x.shape) for (x,) in examples(signature)] == sizes
    assert len(list(examples(signature, (7,)))) == 1


def test_an_engine_without_timers_has_no_profile():
    class Doubled(EngineModel):
        def run(self, inputs):
            return [2 * x for x in inputs]

    signature = SimpleNamespace(
        flatten=lambda args, kwargs: list(args), unflatten=list, unusual=lambda inputs: ""
    )
    fast, x = Doubled(signature), torch.rand(3)
    assert torch.equal(fast(x)[0], 2 * x)
    assert fast.profile([x], rounds=1) is None
    assert fast.in_pytorch == ()


def test_a_signature_that_claims_huge_inputs_has_nothing_to_compare_on():
    graph, signature = capture(nn.Linear(4, 2).eval(), (torch.rand(3, 4),))
    claimed = dataclasses.replace(signature, shapes=(((2**40, 4),),))
    program = GraphProgram(graph, claimed)
    assert list(examples(claimed)) == []
    assert disagreement(compile_program(program, "reference"), program) is None


class Edges(nn.Module):
    """Nodes of a graph are summed along its edges, which count them."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(8, 4)

    def forward(self, x, edges):
        return torch.zeros(x.shape[0], 4).index_add(0, edges[1], self.linear(x)[edges[0]])


@pytest.mark.filterwarnings("ignore::octavo.PartitionWarning")
def test_engines_are_compared_where_integers_count_rows():
    data = [(torch.randn(n, 8), torch.randint(n, (2, 3 * n))) for n in (6, 9, 7)]
    q = octavo.quantize(Edges().eval(), data, config="fast")

    class Wrong(EngineModel):
        def run(self, inputs):
            return [1.5 * t for t in q.graph_module(*inputs)]

    assert disagreement(Wrong(q.signature), q) is not None
    x, edges = torch.randn(20, 8), torch.randint(20, (2, 40))
    for engine in ("openvino", "torch_int8"):
        assert octavo.sqnr(q(x, edges), q.compile(engine)(x, edges)) > 40


def test_rounding_on_made_inputs_explains_as_much_as_it_costs_there():
    """Calibration was on [0, 1]; on numbers around 4 most are clipped, which costs far more."""
    q = octavo.quantize(nn.Linear(16, 8), torch.rand(64, 16), config="fast")
    far = dataclasses.replace(q.signature, values=((0.0, 9.0, 4.0, 3.0, False),))

    class Noisy(EngineModel):
        def __init__(self, signature, noise):
            super().__init__(signature)
            self.noise = noise

        def run(self, inputs):
            (y,) = q.graph_module(*inputs)
            return [y + self.noise * y.square().mean().sqrt() * torch.randn_like(y)]

    for signature, noise, agrees in (
        (far, 0.2, True),
        (far, 2.0, False),
        (q.signature, 0.2, False),
    ):
        program = GraphProgram(q.graph_module, signature)
        assert (disagreement(Noisy(signature, noise), program) is None) is agrees


# ---- copies, and other processes


@pytest.mark.parametrize("engine", ["openvino", "onnxruntime", "torch_int8", "reference"])
@pytest.mark.parametrize("how", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))])
def test_a_copy_is_compiled_anew(engine, how, residual):
    fast, x = residual.compile(engine), images(3)
    torch.testing.assert_close(how(fast)(x), fast(x))


def test_options_are_kept_in_a_copy(residual):
    copied = copy.deepcopy(residual.compile(threads=1, check=False))
    assert copied.origin[1:] == ("openvino", {"threads": 1, "check": False})


@pytest.mark.parametrize("context", ["spawn", "forkserver"])
def test_workers_of_a_data_loader_run_a_compiled_model(context, residual):
    data = Outputs(residual.compile(), [images(1) for _ in range(4)])
    loader = DataLoader(data, 2, num_workers=2, multiprocessing_context=context)
    expected = torch.stack([data[i] for i in range(4)])
    torch.testing.assert_close(torch.cat([*loader]), expected)


def test_servers_with_several_processes(residual):
    fast, xs = residual.compile(), [images(n) for n in (1, 3, 3, 5)]  # some sizes are new to it
    fast.submit(xs[0]).result()
    with serving(fast, "spawn", 2) as pool:
        found = [pool.submit(answer, x.numpy()).result(120) for x in xs]
    for x, y in zip(xs, found, strict=True):
        torch.testing.assert_close(torch.from_numpy(y), fast(x))


def serving(model, context, processes=1):
    context = multiprocessing.get_context(context)
    return ProcessPoolExecutor(processes, context, initializer=serve, initargs=(model,))


@pytest.mark.parametrize("engine, runtime", [("openvino", "OpenVINO"), ("onnxruntime", "ONNX")])
def test_a_forked_process_is_an_error_and_no_deadlock(engine, runtime, residual):
    fast, x = residual.compile(engine), images(2)
    fast(x)
    with (
        serving(fast, "fork") as pool,
        pytest.raises(EngineError, match=f"forked after {runtime}.* spawn"),
    ):
        pool.submit(answer, x.numpy()).result(120)


def test_onnx_runtime_with_one_thread_runs_in_a_forked_process(residual):
    fast, x = residual.compile("onnxruntime", threads=1), images(2)
    with serving(fast, "fork") as pool:
        assert pool.submit(answer, x.numpy()).result(120).shape == (2, 5)


def test_a_model_that_compile_has_not_made_cannot_be_copied(residual):
    with pytest.raises(EngineError, match="cannot be copied"):
        copy.deepcopy(TorchInt8(residual.graph_module, residual.signature))
