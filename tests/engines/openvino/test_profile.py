import pytest
import torch
from torch import nn

import octavo
from networks import calls, make
from octavo import EngineError
from octavo.bench import profile, profile_tables
from octavo.capture.export import capture
from octavo.engines.base import GraphProgram
from octavo.engines.openvino.profile import Operator


def quantized(name):
    net, inputs = make(name)
    return octavo.quantize(net, calls(inputs)), inputs(2)[0]


@pytest.fixture(scope="module")
def residual():
    return quantized("residual")


def test_each_int8_convolution_has_its_module_path(residual):
    q, args = residual
    rows = profile(q, *args, rounds=3)
    convolutions = {o.path: o for o in rows if o.kind == "Convolution"}
    assert set(convolutions) == {"stem", "conv1", "conv2"}
    assert {o.reads for o in convolutions.values()} <= {"u8", "i8"}
    assert convolutions["conv2"].nodes[0] == "conv2/conv2d_2"
    assert any(n.startswith("add") for n in convolutions["conv2"].nodes)  # fused, as the residual
    (linear,) = (o for o in rows if o.kind == "FullyConnected")
    assert (linear.path, linear.gives) == ("fc", "f32")
    assert sum(o.milliseconds for o in rows) > 0
    assert rows == sorted(rows, key=lambda o: -o.milliseconds)


def test_what_openvino_adds_belongs_to_what_reads_it(residual):
    q, args = residual
    reorders = [o for o in profile(q, *args, rounds=1) if o.kind == "Reorder"]
    assert {o.path for o in reorders} <= {"stem", "conv1", "conv2", "fc", ""}
    assert all(o.nodes == () for o in reorders)


def test_packed_projections_keep_the_path_of_their_module():
    q, args = quantized("transformer")
    linears = [o.path for o in profile(q, *args, rounds=1) if o.kind == "FullyConnected"]
    assert sorted(linears) == ["head", "mlp.0", "mlp.2", "proj", "qkv", "qkv", "qkv"]


class Sorted(nn.Module):
    """topk is not in the table."""

    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 4, 1))

    def forward(self, x):
        return torch.topk(self.body(x).flatten(1), 3)[0]


def test_a_model_that_went_through_the_frontend(tmp_path):
    x = torch.randn(4, 3, 8, 8)
    octavo.save(octavo.quantize(Sorted(), x), tmp_path / "sorted.octavo")
    rows = profile(octavo.load(tmp_path / "sorted.octavo"), x, rounds=1)
    convolutions = {o.path: o.reads for o in rows if o.kind == "Convolution"}
    assert set(convolutions) == {"body.0", "body.2"}
    assert set(convolutions.values()) <= {"u8", "i8"}


def test_compiled_models_keep_their_settings_and_inputs_by_name():
    net, inputs = make("structured")
    fast = octavo.quantize(net, calls(inputs)).compile(threads=1)
    args, kwargs = inputs(3)
    rows = profile(fast, *args, rounds=1, **kwargs)
    assert {o.path for o in rows if o.kind == "Convolution"} == {"tower.0", "tower.2"}
    assert "PERF_COUNT" not in fast.settings


def test_the_tables_show_the_most_expensive_and_the_totals(residual):
    q, args = residual
    rows = profile(q, *args, rounds=1)
    each, kinds = profile_tables(rows, most=2)
    assert each.row_count == 2
    assert each.caption == f"and {len(rows) - 2} cheaper ones"
    assert kinds.row_count == len({o.kind for o in rows})
    assert profile_tables(rows)[0].caption is None


def test_other_engines_and_models_cannot_be_profiled(residual):
    q, args = residual
    for model in (q.compile("reference"), q.compile("torch_int8"), nn.Linear(2, 2)):
        with pytest.raises(EngineError, match="profile takes a QuantizedModel"):
            profile(model, *args)


def test_any_program_is_compiled_and_profiled():
    program = GraphProgram(*capture(nn.Linear(4, 2), (torch.rand(3, 4),)))
    operators = profile(program, torch.rand(3, 4), rounds=1)
    assert {type(o) for o in operators} == {Operator}
    assert "FullyConnected" in {o.kind for o in operators}


class Mlp(nn.Module):
    """Channels last, as Swin's and ConvNeXt's; what it computes is read a second time."""

    def __init__(self, width=16):
        super().__init__()
        self.first, self.last = nn.Linear(8, width), nn.Linear(width, 8)

    def forward(self, x):
        inner = nn.functional.gelu(self.first(x))
        return self.last(inner) + x, inner.mean(-1)


@pytest.mark.parametrize(
    "between", [(5,), (4, 6), (2, 3, 4)], ids=lambda sizes: f"{len(sizes) + 2}-d"
)
def test_what_follows_a_linear_layer_is_one_with_it_in_any_shape(between):
    q = octavo.quantize(Mlp(), torch.randn(8, *between, 8))
    x = torch.randn(3, *between, 8)
    layers = {o.path: o for o in profile(q, x, rounds=1) if o.kind == "FullyConnected"}
    assert {"first/linear", "gelu"} <= set(layers["first"].nodes)
    for got, expected in zip(q.compile()(x), q(x), strict=True):
        assert got.shape == expected.shape
        assert octavo.sqnr(expected, got) > 40


def test_a_linear_layer_on_sizes_that_vary_keeps_its_shape():
    calls = [torch.randn(4, n, n + 1, 8) for n in (3, 5)]
    q = octavo.quantize(Mlp(), calls)
    for n in (2, 6):
        x = torch.randn(2, n, 4, 8)
        for got, expected in zip(q.compile()(x), q(x), strict=True):
            assert octavo.sqnr(expected, got) > 40
