import subprocess
import sys
import textwrap

import numpy as np
import onnx
import openvino
import pytest
import torch
from torch import nn

import octavo
from networks import NETWORKS


def test_an_onnx_file_is_standard_with_int8_weights_and_a_free_batch(quantized, tmp_path):
    q, _ = quantized("residual")
    octavo.export(q, tmp_path / "m.onnx")
    model = onnx.load(tmp_path / "m.onnx")
    onnx.checker.check_model(model, full_check=True)
    assert [(o.domain, o.version) for o in model.opset_import if not o.domain] == [("", 21)]
    assert {n.domain for n in model.graph.node} <= {"", "ai.onnx"}
    weights = [t for t in model.graph.initializer if t.data_type == onnx.TensorProto.INT8]
    assert sorted(tuple(t.dims) for t in weights if len(t.dims) > 1) == [
        (5, 16),
        (16, 3, 3, 3),
        (16, 16, 3, 3),
        (16, 16, 3, 3),
    ]
    (x,) = model.graph.input
    batch, *rest = x.type.tensor_type.shape.dim
    assert batch.dim_param
    assert [d.dim_value for d in rest] == [3, 16, 16]


def test_onnx_runtime_fuses_integer_kernels(quantized, tmp_path):
    import onnxruntime

    expected = {
        "residual": {"QLinearConv": 3, "QGemm": 1},
        "mobile": {"QLinearConv": 2, "QGemm": 1},
        "transformer": {"MatMulIntegerToFloat": 6, "QLinearMatMul": 1, "QGemm": 1},
    }
    for name, least in expected.items():
        octavo.export(quantized(name)[0], tmp_path / "m.onnx")
        options = onnxruntime.SessionOptions()
        options.optimized_model_filepath = str(tmp_path / "optimized.onnx")
        options.log_severity_level = 3
        onnxruntime.InferenceSession(tmp_path / "m.onnx", options, ["CPUExecutionProvider"])
        kinds = [n.op_type for n in onnx.load(tmp_path / "optimized.onnx").graph.node]
        assert all(kinds.count(kind) >= count for kind, count in least.items()), kinds
        assert "Clip" not in kinds


@pytest.mark.parametrize("name", NETWORKS)
def test_ir_gives_what_the_engine_gives(name, quantized, tmp_path):
    import openvino

    q, inputs = quantized(name)
    octavo.export(q, tmp_path / "m.xml")
    args, kwargs = inputs(3)
    settings = {"INFERENCE_PRECISION_HINT": "f32"}
    compiled = openvino.Core().compile_model(tmp_path / "m.xml", "CPU", settings)
    flat = [t.numpy() for t in q.signature.flatten(args, kwargs)]
    got = [torch.from_numpy(r) for r in compiled(flat).values()]
    assert octavo.sqnr(q(*args, **kwargs), q.signature.unflatten(got)) > 35


def test_ir_needs_neither_octavo_nor_torch_and_holds_int8(tmp_path):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(256, 512), nn.ReLU(), nn.Linear(512, 4))
    x = torch.randn(64, 256)
    q = octavo.quantize(net, x)
    octavo.export(q, tmp_path / "m.xml")
    np.save(tmp_path / "x.npy", x[:3].numpy())
    script = """
        import sys, numpy, openvino
        folder = sys.argv[1]
        model = openvino.Core().compile_model(folder + "/m.xml", "CPU")
        numpy.save(folder + "/y.npy", model(numpy.load(folder + "/x.npy"))[0])
        assert not {"torch", "octavo"} & set(sys.modules)
    """
    command = [sys.executable, "-c", textwrap.dedent(script), str(tmp_path)]
    subprocess.run(command, check=True)
    assert octavo.sqnr(q(x[:3]), torch.from_numpy(np.load(tmp_path / "y.npy"))) > 30
    weights = 256 * 512 + 512 * 4
    assert weights <= (tmp_path / "m.bin").stat().st_size < 1.2 * weights
    assert "0/linear" in (tmp_path / "m.xml").read_text()  # names by module path


def test_a_longer_sequence_runs_in_onnx_runtime():
    class Words(nn.Module):
        def __init__(self):
            super().__init__()
            self.embed, self.a, self.b = nn.Embedding(30, 16), nn.Linear(16, 16), nn.Linear(16, 4)

        def forward(self, ids):
            return self.b(torch.relu(self.a(self.embed(ids))))

    q = octavo.quantize(Words(), [torch.randint(30, (4, n)) for n in (5, 7)])
    fast = q.compile("onnxruntime")
    ids = torch.randint(30, (2, 11))
    assert octavo.sqnr(q(ids), fast(ids)) > 35


def test_nothing_is_left_behind_and_an_older_file_stays_where_export_fails(
    quantized, tmp_path, monkeypatch
):
    q, _ = quantized("residual")
    octavo.export(q, tmp_path / "m.xml")
    before = (tmp_path / "m.xml").read_bytes()

    def fail(model, path):
        path.write_text("half")
        raise octavo.FormatError("no")

    monkeypatch.setitem(sys.modules["octavo.io.export"].EXPORTERS, ".xml", (fail, None))
    with pytest.raises(octavo.FormatError, match="no"):
        octavo.export(q, tmp_path / "m.xml")
    assert (tmp_path / "m.xml").read_bytes() == before
    assert sorted(p.name for p in tmp_path.iterdir()) == ["m.bin", "m.xml"]


@pytest.mark.parametrize(
    ("suffix", "package", "error"),
    [(".xml", "openvino", octavo.EngineError), (".onnx", "onnx", octavo.FormatError)],
)
def test_a_missing_package_is_named(quantized, tmp_path, monkeypatch, suffix, package, error):
    monkeypatch.setitem(sys.modules, package, None)  # its import fails
    with pytest.raises(error, match=rf"needs the packages? {package}\b.*pip install"):
        octavo.export(quantized("residual")[0], tmp_path / f"m{suffix}")
    assert list(tmp_path.iterdir()) == []


def test_what_cannot_be_exported_is_refused(quantized, tmp_path):
    q, _ = quantized("residual")
    with pytest.raises(octavo.FormatError, match=r"\.onnx, \.xml"):
        octavo.export(q, tmp_path / "m.tflite")
    with pytest.raises(octavo.FormatError, match="no folder"):
        octavo.export(q, tmp_path / "missing" / "m.onnx")
    with pytest.raises(octavo.FormatError, match="QuantizedModel"):
        octavo.export(nn.Linear(2, 2), tmp_path / "m.onnx")

    class Fourier(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(8, 8)

        def forward(self, x):
            return torch.linalg.svdvals(self.layer(x))

    odd = octavo.quantize(Fourier(), torch.randn(4, 8, 8))
    for name in ("m.onnx", "m.xml"):
        with pytest.raises(octavo.FormatError, match="cannot"):
            octavo.export(odd, tmp_path / name)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.filterwarnings("ignore::octavo.SaveWarning")
def test_free_sizes_have_names(tmp_path):
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU())
    q = octavo.quantize(net, [torch.randn(8, 3, 12, 12), torch.randn(8, 3, 14, 16)])
    octavo.export(q, tmp_path / "net.onnx")
    graph = onnx.load(tmp_path / "net.onnx").graph
    sizes = [
        [d.dim_param or d.dim_value for d in value.type.tensor_type.shape.dim]
        for value in (*graph.input, *graph.output)
    ]
    assert sizes == [
        ["batch", 3, "input_1_2", "input_1_3"],
        ["batch", 4, "input_1_2 - 2", "input_1_3 - 2"],
    ]


@pytest.mark.parametrize("suffix", [".onnx", ".xml"])
def test_files_say_how_exact_each_operator_is(tmp_path, suffix):
    net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 36, 4))
    q = octavo.quantize(net.eval(), torch.randn(16, 3, 8, 8))
    path = tmp_path / f"net{suffix}"
    octavo.export(q, path)
    if suffix == ".onnx":
        model = onnx.load(path)
        found = {p.key.removeprefix("octavo."): p.value for p in model.metadata_props}
    else:
        written = openvino.Core().read_model(path)
        keys = ("3/linear", "output")
        found = {key: written.get_rt_info(["octavo", key]).astype(str) for key in keys}
    row = next(r for r in q.report().rows if r.operator == "linear")
    assert found["3/linear"] == f"linear: int8, {row.sqnr:.1f} dB"
    assert found["output"] == f"{q.report().output_sqnr:.1f} dB"
