import warnings

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import octavo
from networks import calls, images, make, wrong_in_threads
from octavo import CaptureError, EngineError, PartitionWarning
from octavo.engines.openvino import partition as openvino_partition
from octavo.engines.openvino.compiled import CompiledModel
from octavo.engines.openvino.partition import PartitionedModel


class Spectrogram(nn.Module):
    def __init__(self):
        super().__init__()
        self.pre, self.conv = nn.Conv1d(1, 4, 3, padding=1), nn.Conv2d(1, 8, 3)
        self.fc = nn.Linear(8, 5)
        self.register_buffer("window", torch.hann_window(64))

    def forward(self, x):
        x = self.pre(x[:, None]).mean(1)
        x = torch.stft(x, 64, 16, window=self.window, return_complex=True).abs()
        return {"out": self.fc(F.relu(self.conv(x[:, None])).mean((2, 3)))}


class FNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b, self.c = nn.Linear(16, 16), nn.Linear(16, 32), nn.Linear(32, 16)
        self.norm = nn.LayerNorm(16)

    def forward(self, x):
        x = self.a(x)
        x = self.norm(x + torch.fft.fft2(x).real)
        return x + self.c(F.gelu(self.b(x)))


class LateJoin(nn.Module):
    """Joins integers from before a Fourier transform with integers from after it."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Conv1d(4, 4, 3, padding=1), nn.Conv1d(4, 4, 3, padding=1)
        self.c = nn.Conv1d(8, 8, 3)

    def forward(self, x):
        early = F.relu(self.a(x))
        late = F.relu(self.b(torch.fft.fft(early).real))
        return self.c(torch.cat([early, late], 1)), early


class Tokens(nn.Module):
    """Any length, sizes read after the transform, operators that only the frontend knows."""

    def __init__(self):
        super().__init__()
        self.embed, self.position = nn.Embedding(50, 16), nn.Embedding(40, 16)
        self.mix, self.out = nn.Linear(16, 16), nn.Linear(16, 4)

    def forward(self, ids):
        x = self.embed(ids) + self.position(torch.arange(ids.shape[1]))
        x = x + torch.fft.fft2(self.mix(x)).real
        x = x.masked_fill((ids == 0)[..., None], 0.0).view(ids.shape[0] * ids.shape[1], 16)
        return self.out(x), ids.shape[1]


class Operator(nn.Module):
    """A Fourier neural operator: complex weights, a complex matrix product."""

    def __init__(self):
        super().__init__()
        self.lift, self.skip, self.out = (nn.Conv2d(i, o, 1) for i, o in ((3, 8), (8, 8), (8, 2)))
        self.weight = nn.Parameter(torch.randn(8, 8, 5, 5, dtype=torch.cfloat) / 8)

    def forward(self, x):
        x = self.lift(x)
        modes = torch.fft.rfft2(x)[..., :5, :5]
        modes = torch.einsum("bixy,ioxy->boxy", modes, self.weight)
        return self.out(F.gelu(torch.fft.irfft2(modes, s=x.shape[-2:]) + self.skip(x)))


def ids(batch, length=None):
    return torch.randint(50, (batch, length or 10 + batch))


CASES = {
    "spectrogram": (Spectrogram, lambda batch: torch.randn(batch, 512), {"stft", "abs_1"}),
    "fnet": (FNet, lambda batch: torch.randn(batch, 10, 16), {"fft_fft2", "real"}),
    "late join": (LateJoin, lambda batch: torch.randn(batch, 4, 20), {"fft_fft", "real"}),
    "tokens": (Tokens, ids, {"fft_fft2", "real"}),
}


def quantized(kind, inputs):
    return octavo.quantize(kind().eval(), [inputs(4), inputs(5), inputs(4)])


def compiled(q):
    with pytest.warns(PartitionWarning):
        return q.compile()


def sqnrs(expected, got):
    leaves, spec = torch.utils._pytree.tree_flatten(expected)
    others, other_spec = torch.utils._pytree.tree_flatten(got)
    assert spec == other_spec
    pairs = list(zip(leaves, others, strict=True))
    assert all(a == b for a, b in pairs if isinstance(a, int))
    return [octavo.sqnr(a, b) for a, b in pairs if not isinstance(a, int)]


@pytest.fixture(scope="module")
def fnet():
    return quantized(*CASES["fnet"][:2])


@pytest.fixture(scope="module")
def fast(fnet):
    return compiled(fnet)


@pytest.mark.parametrize("name", CASES)
def test_it_agrees_with_the_reference_and_pytorch_runs_the_transform_alone(name):
    kind, inputs, in_pytorch = CASES[name]
    q = quantized(kind, inputs)
    fast = compiled(q)
    for batch in (3, 1):
        x = inputs(batch)
        expected = q(x)
        assert min(sqnrs(expected, fast(x))) > 35
        assert min(sqnrs(expected, fast(x.numpy()))) > 35
    assert set(fast.in_pytorch) == in_pytorch
    crossing = {dtype for s in fast.segments[1:] for dtype, _ in s.signature.inputs}
    assert crossing <= {"float32", "int64", "bool"}  # never quantized integers


@pytest.mark.parametrize("name", ["spectrogram", "fnet"])
def test_int8_layers_are_openvinos_integer_kernels(name):
    kind, inputs, _ = CASES[name]
    fast = compiled(quantized(kind, inputs))
    fast(inputs(2))
    layers = [
        layer.get_rt_info()
        for segment in fast.segments
        if segment.compiled is not None
        for model in [*segment.compiled.by_shape.values()][-1:]
        for layer in model.get_runtime_model().get_ordered_ops()
    ]
    kinds = [
        i["runtimePrecision"].astype(str)
        for i in layers
        if i["layerType"].astype(str) in ("Convolution", "FullyConnected")
    ]
    assert len(kinds) == 3
    assert set(kinds) <= {"u8", "i8"}


def test_complex_weights_stay_float_and_run_in_pytorch():
    q = quantized(Operator, images)
    floats = {r.operator: r.reason for r in q.report().rows if r.precision == "float"}
    assert floats["matmul"] == "its numbers are complex"
    fast, x = compiled(q), images(3)
    assert octavo.sqnr(q(x), fast(x)) > 35
    assert not any("conv" in name for name in fast.in_pytorch)


def test_threads_do_not_mix_their_results(fast):
    inputs = [torch.randn(1 + i % 3, 10, 16) for i in range(6)]
    assert wrong_in_threads(fast, inputs, rounds=30) == []


def test_a_loaded_model_is_cut_alike(fnet, fast, tmp_path):
    octavo.save(fnet, tmp_path / "fnet.octavo")
    loaded = compiled(octavo.load(tmp_path / "fnet.octavo"))
    x = torch.randn(3, 10, 16)
    assert loaded.in_pytorch == fast.in_pytorch
    assert octavo.sqnr(fnet(x), loaded(x)) > 35


def test_one_warning_points_at_the_call_and_names_what_runs_in_pytorch(fnet):
    with pytest.warns(PartitionWarning, match="in PyTorch run fft_fft2, real") as caught:
        fnet.compile()
    assert [w.filename for w in caught] == [__file__]


def test_a_model_that_openvino_runs_is_one_openvino_model():
    net, inputs = make("residual")
    q = octavo.quantize(net, calls(inputs))
    with warnings.catch_warnings():
        warnings.simplefilter("error", PartitionWarning)
        fast = q.compile()
    assert type(fast) is CompiledModel
    assert fast.in_pytorch == ()


def refuse(*_):
    raise EngineError("no")


def test_a_segment_that_cannot_be_built_runs_in_pytorch(fnet, monkeypatch):
    monkeypatch.setattr(openvino_partition.CompiledModel, "run", refuse)
    fast, x = compiled(fnet), torch.randn(3, 10, 16)
    assert {"a/linear", "c/linear_2"} < set(fast.in_pytorch)
    assert torch.equal(fast(x), fnet(x))


def test_a_segment_that_cannot_be_compiled_runs_in_pytorch(fnet, monkeypatch):
    fast, x = compiled(fnet), torch.randn(5, 10, 16)
    monkeypatch.setattr(CompiledModel, "compiled", refuse)
    assert torch.equal(fast(x), fnet(x))
    assert {"a/linear", "c/linear_2"} < set(fast.in_pytorch)


def test_a_graph_whose_shapes_cannot_be_told_runs_in_pytorch(fnet, monkeypatch):
    monkeypatch.setattr("octavo.engines.openvino.frontend.examples", lambda signature: ())
    fast, x = compiled(fnet), torch.randn(3, 10, 16)
    assert {"a/linear", "fft_fft2", "c/linear_2"} < set(fast.in_pytorch)
    assert torch.equal(fast(x), fnet(x))


def test_another_call_is_refused(fast):
    assert isinstance(fast, PartitionedModel)
    with pytest.raises(CaptureError, match="shape"):
        fast(torch.randn(3, 10, 17))
