import collections
import dataclasses
import enum
import json
import operator
import os
import signal
import struct
import subprocess
import sys
import time
from pathlib import Path

import jsonschema
import pytest
import torch
import torch.nn.functional as F
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import fx, nn
from torch._higher_order_ops import map as control_flow_map
from torch._higher_order_ops import scan, while_loop

import octavo
from networks import NETWORKS
from octavo import FormatError
from octavo.config import as_config

FILES = Path(__file__).parents[1] / "files"


@pytest.fixture
def stored(quantized, tmp_path):
    q, _ = quantized("residual")
    octavo.save(q, tmp_path / "net.octavo")
    return q, tmp_path / "net.octavo"


@pytest.mark.parametrize("name", NETWORKS)
def test_load_gives_the_same_model(name, quantized, tmp_path):
    q, inputs = quantized(name)
    octavo.save(q, tmp_path / "net.octavo")
    loaded = octavo.load(tmp_path / "net.octavo")
    args, kwargs = inputs(3)
    expected, got = q(*args, **kwargs), loaded(*args, **kwargs)
    torch.testing.assert_close(got, expected, rtol=0, atol=0)
    torch.testing.assert_close(loaded.compile()(*args, **kwargs), expected, rtol=0.2, atol=0.2)
    assert loaded.config == q.config
    assert loaded.signature == q.signature
    assert loaded.report() == dataclasses.replace(q.report(), spreads={})


SCHEMA = json.loads((Path(__file__).parents[2] / "docs" / "file-format.schema.json").read_text())


VALIDATOR = jsonschema.Draft202012Validator(SCHEMA)


def faults(path):
    """What the schema finds in a file."""
    return [e.message for e in VALIDATOR.iter_errors(metadata_of(path))]


def metadata_of(path):
    with safe_open(path, "pt") as f:
        return {key: json.loads(text) for key, text in f.metadata().items()}


@pytest.mark.parametrize("name", NETWORKS)
def test_files_are_as_the_schema_says(name, quantized, tmp_path):
    q, _ = quantized(name)
    octavo.save(q, tmp_path / "net.octavo", histograms=True)
    assert faults(tmp_path / "net.octavo") == []


def test_the_frozen_file_is_as_the_schema_says():
    VALIDATOR.check_schema(SCHEMA)
    assert faults(FILES / "format1.octavo") == []


def _with_unknown_kind(data):
    data["graph"][-1]["args"] = {"set": []}


def _with_bad_name(data):
    data["graph"][0]["name"] = "x; import os"


def _without_inputs(data):
    del data["signature"]["inputs"]


@pytest.mark.parametrize("damage", [_with_unknown_kind, _with_bad_name, _without_inputs])
def test_the_schema_refuses_what_the_loader_refuses(stored, damage):
    data = metadata_of(stored[1])
    damage(data)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(data, SCHEMA)


def test_weights_take_a_byte_each(stored):
    q, path = stored
    with safe_open(path, "pt") as f:
        kinds = {n: f.get_tensor(n).dtype for n in f.keys()}  # noqa: SIM118
    assert kinds["fc.weight_int8"] == torch.int8
    weights = sum(r.parameters for r in q.report().rows)
    assert os.path.getsize(path) < weights + 40_000


def test_saving_again_replaces_and_leaves_nothing_else(stored):
    q, path = stored
    octavo.save(q, path)
    assert [p.name for p in path.parent.iterdir()] == [path.name]


def edited(path, **changes):
    """The file with metadata changed by functions on the parsed JSON."""
    with safe_open(path, "pt") as f:
        tensors = {n: f.get_tensor(n) for n in f.keys()}  # noqa: SIM118
        metadata = dict(f.metadata())
    for key, change in changes.items():
        data = json.loads(metadata[key])
        metadata[key] = json.dumps(change(data) or data)
    save_file(tensors, path, metadata)
    return path


def format_of(path):
    with safe_open(path, "pt") as f:
        return json.loads(f.metadata()["octavo"])["format"]


def first_call(graph):
    return next(n for n in graph if n["op"] == "call_function")


@pytest.mark.parametrize(
    "target",
    [
        "os.system",
        "posix.system",
        "builtins.eval",
        "operator.methodcaller",
        "operator.attrgetter",
        "aten.from_file.default",
        "aten.add_.Tensor",
        "aten.set_.source_Tensor",
        "aten.__class__.mro",
        "octavo.dequantize.default.__class__",
        "torch.load",
        "",
    ],
)
def test_operators_outside_the_allowed_set_are_refused(stored, target):
    def change(graph):
        first_call(graph)["target"] = target

    with pytest.raises(FormatError):
        octavo.load(edited(stored[1], graph=change))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("name", "x): import os #"),
        ("name", "class"),
        ("name", 3),
        ("target", 'x"); import os; ("'),
    ],
)
def test_names_that_would_be_code_are_refused(stored, field, value):
    def change(graph):
        next(n for n in graph if n["op"] == "placeholder")[field] = value

    with pytest.raises(FormatError):
        octavo.load(edited(stored[1], graph=change))


@pytest.mark.parametrize(
    "args",
    [
        {"tuple": [{"node": "nowhere"}]},
        {"tuple": [{"code": "1"}]},
        {"tuple": [{"torch": "load"}]},
        {"tuple": [{"dict": {"a b": 1}}]},
        {"tuple": [{}]},
        [1, 2],
        {"tuple": [{"a": 1, "b": 2}]},
    ],
)
def test_arguments_of_other_kinds_are_refused(stored, args):
    def change(graph):
        first_call(graph)["args"] = args

    with pytest.raises(FormatError):
        octavo.load(edited(stored[1], graph=change))


def test_modules_and_unknown_tensors_are_refused(stored):
    def call_module(graph):
        first_call(graph).update(op="call_module", target="fc")

    def unknown(graph):
        next(n for n in graph if n["op"] == "get_attr")["target"] = "training"

    for change in (call_module, unknown):
        q, path = stored
        octavo.save(q, path)
        with pytest.raises(FormatError):
            octavo.load(edited(path, graph=change))


def test_another_format_is_refused(stored):
    with pytest.raises(
        FormatError, match="format 3; this version of Octavo reads formats 1 to 2"
    ) as e:
        octavo.load(edited(stored[1], octavo=lambda d: {"format": 3}))
    assert str(stored[1]) in str(e.value)


def test_a_file_of_the_first_format_is_read():
    example = load_file(FILES / "format1_example.safetensors")
    q = octavo.load(FILES / "format1.octavo")
    assert octavo.sqnr(example["output"], q(example["input"])) > 35
    assert q.report().int8_share == 1


def test_a_killed_writer_leaves_the_old_file_whole(stored):
    """Killed at thirty moments, from the first steps of `save` to those after it."""
    q, path = stored
    x = torch.rand(2, 3, 16, 16)
    expected = q(x)
    start = time.perf_counter()
    octavo.save(q, path)
    duration = time.perf_counter() - start
    for i in range(30):
        child = os.fork()
        if child == 0:
            while True:
                octavo.save(q, path)
        time.sleep(duration * (0.5 + i / 15))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        assert torch.equal(octavo.load(path)(x), expected)


def test_any_other_file_is_refused(tmp_path):
    path = tmp_path / "x.octavo"
    with pytest.raises(FormatError, match="cannot read"):
        octavo.load(path)
    for content in (b"", b"not a file", struct.pack("<Q", 1 << 60), b"\x80\x04pickle"):
        path.write_bytes(content)
        with pytest.raises(FormatError):
            octavo.load(path)
    save_file({"a": torch.zeros(2)}, path)
    with pytest.raises(FormatError, match="not an Octavo file"):
        octavo.load(path)


def test_a_truncated_file_is_refused(stored):
    _, path = stored
    content = path.read_bytes()
    for size in (4, 100, len(content) // 2, len(content) - 1):
        path.write_bytes(content[:size])
        with pytest.raises(FormatError):
            octavo.load(path)


def test_loading_imports_nothing(stored):
    before = set(sys.modules)
    octavo.load(stored[1])
    assert not {m for m in set(sys.modules) - before if not m.startswith("torch")}


def test_complex_numbers_are_kept(tmp_path):
    class Turned(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(8, 8)

        def forward(self, x):
            return torch.fft.irfft(torch.fft.rfft(self.fc(x)) * (0.5 + 2j), 8)

    q = octavo.quantize(Turned(), torch.rand(8, 8))
    octavo.save(q, tmp_path / "net.octavo")
    x = torch.rand(3, 8)
    assert torch.equal(octavo.load(tmp_path / "net.octavo")(x), q(x))


class Color(enum.Enum):
    RED = 1


@pytest.mark.parametrize(
    "make", [lambda y: collections.defaultdict(list, a=y), lambda y: {Color.RED: y}]
)
def test_structures_that_loading_would_import_for_are_not_saved(make, tmp_path):
    class Net(nn.Linear):
        def forward(self, x):
            return make(super().forward(x))

    q = octavo.quantize(Net(4, 2), torch.rand(8, 4))
    assert q(torch.rand(3, 4)).keys()
    with pytest.raises(FormatError):
        octavo.save(q, tmp_path / "net.octavo")


@dataclasses.dataclass
class Unnamed:
    logits: torch.Tensor


@dataclasses.dataclass
class Logits:
    logits: torch.Tensor


torch.export.register_dataclass(Unnamed)
torch.export.register_dataclass(Logits, serialized_type_name="test_storage.Logits")


Pair = collections.namedtuple("Pair", "a b")


class Classifier(nn.Module):
    def __init__(self, kind):
        super().__init__()
        self.kind, self.fc = kind, nn.Linear(4, 2)

    def forward(self, x):
        return self.kind(self.fc(x))


def test_a_class_of_ones_own_is_saved_by_the_name_it_has_in_files(tmp_path):
    x, path = torch.randn(3, 4), tmp_path / "x.octavo"
    q = octavo.quantize(Classifier(Logits), x)
    octavo.save(q, path)
    loaded = octavo.load(path)(x)
    assert type(loaded) is Logits and torch.equal(loaded.logits, q(x).logits)
    assert format_of(path) == 1


def test_other_classes_of_outputs_are_saved_by_their_fields(tmp_path):
    x, path = torch.randn(3, 4), tmp_path / "x.octavo"
    for kind in (Unnamed, lambda y: y.max(1), lambda y: y.topk(2), lambda y: Pair(y, [y, y + 1])):
        q = octavo.quantize(Classifier(kind), x, config="fast")
        octavo.save(q, path)
        expected, loaded = q(x), octavo.load(path)(x)
        assert str(loaded) == str(expected)
        assert type(loaded).__name__ == type(expected).__name__
        if isinstance(expected, Pair):
            a, (b, c) = loaded
            assert loaded.a is a and torch.equal(c, b + 1)
        assert format_of(path) == 2
        assert faults(path) == []


def test_saving_something_else_or_nowhere_is_refused(stored, tmp_path):
    with pytest.raises(FormatError, match="not a Linear"):
        octavo.save(torch.nn.Linear(2, 2), tmp_path / "x")
    with pytest.raises(FormatError, match="no folder"):
        octavo.save(stored[0], tmp_path / "none" / "x")


class Named(nn.Module):
    """Two layers whose names only differ in what a file's names leave out."""

    def __init__(self, *names):
        super().__init__()
        self.layers = nn.ModuleDict({name: nn.Linear(4, 4) for name in names})

    def forward(self, x):
        for layer in self.layers.values():
            x = layer(x).relu()
        return x


@pytest.mark.parametrize("names", [("block1-0", "block1_0"), ("a b", "a/b", "a_b"), ("é", "0")])
def test_modules_of_any_name_are_saved(names, tmp_path):
    q = octavo.quantize(Named(*names), torch.randn(32, 4), config="fast")
    octavo.save(q, tmp_path / "m.octavo")
    loaded, x = octavo.load(tmp_path / "m.octavo"), torch.randn(5, 4)
    assert torch.equal(loaded(x), q(x))
    paths = [row.path for row in loaded.report().rows if "linear" in row.operator]
    assert paths == [f"layers.{name}" for name in names]  # the report has the model's own


def test_what_could_not_be_loaded_is_not_saved(tmp_path):
    q = octavo.quantize(nn.Linear(4, 2), torch.randn(8, 4), config="fast")
    q.graph_module.register_buffer('x"', torch.zeros(1))
    with pytest.raises(FormatError, match="not a name that a file may hold"):
        octavo.save(q, tmp_path / "m.octavo")
    assert not list(tmp_path.iterdir())


def test_a_tensor_under_two_names_is_saved_under_both(tmp_path):
    q = octavo.quantize(nn.Linear(4, 2), torch.randn(8, 4), config="fast")
    node = next(n for n in q.graph.nodes if n.op == "get_attr")
    q.graph_module.register_buffer("again", q.graph_module.get_buffer(node.target))
    node.target = "again"
    q.graph_module.recompile()
    octavo.save(q, tmp_path / "m.octavo")
    x = torch.randn(5, 4)
    assert torch.equal(octavo.load(tmp_path / "m.octavo")(x), q(x))


def test_buffers_that_are_views_of_the_same_memory_are_saved(tmp_path):
    class Shifted(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear, both = nn.Linear(4, 4), torch.randn(8)
            self.register_buffer("a", both[:4])
            self.register_buffer("b", both[2:6])

        def forward(self, x):
            return self.linear(x + self.a) * self.b

    q = octavo.quantize(Shifted(), torch.randn(32, 4), config="fast")
    octavo.save(q, tmp_path / "m.octavo")
    x = torch.randn(5, 4)
    assert torch.equal(octavo.load(tmp_path / "m.octavo")(x), q(x))


# ---- operators

BOXES = torch.tensor([[0.0, 1, 1, 9, 9], [0, 2, 2, 8, 8]])
KEPT = {
    "nearest-exact": lambda y: F.interpolate(y, scale_factor=2, mode="nearest-exact"),
    "max_unpool2d": lambda y: F.max_unpool2d(*F.max_pool2d(y, 2, return_indices=True), 2),
    "istft": lambda y: torch.istft(
        torch.fft.rfft(y.mean(1), n=30).transpose(1, 2), 30, window=torch.ones(30), center=True
    ),
    "losses": lambda y: (
        F.cross_entropy(y, torch.zeros(y.shape[0], 16, 16, dtype=torch.long)),
        F.mse_loss(y, y * 2),
        F.smooth_l1_loss(y, y + 1),
        F.l1_loss(y, y + 1),
        F.huber_loss(y, y + 1),
        F.binary_cross_entropy_with_logits(y, y.sigmoid()),
        F.cosine_embedding_loss(y[:, 0, 0], y[:, 1, 1], torch.ones(y.shape[0])),
    ),
    "linear algebra": lambda y: (
        torch.linalg.svdvals(y.mean(1)),
        torch.linalg.eigvalsh(y.mean(1) @ y.mean(1).mT),
        torch.linalg.det(y.mean(1)),
        torch.linalg.solve(y.mean(1) + 9 * torch.eye(16), y[:, 0]),
        torch.linalg.matrix_norm(y),
        torch.linalg.multi_dot([y[0, 0], y[0, 1], y[0, 2]]),
    ),
    "sets": lambda y: y.argmax(1).unique(),
    "counts": lambda y: (torch.histc(y, 10), y.argmax(1).flatten().bincount(), y.mode(1)[0]),
    "moments": lambda y: (y.nanmedian(), y.quantile(0.3), y.std(1), y.logcumsumexp(1)),
    "special": lambda y: (
        torch.special.i0e(y),
        torch.special.entr(y.abs()),
        torch.special.erfcx(y.abs()),
        torch.hypot(y, y).nextafter(y),
    ),
    "integrals": lambda y: (torch.trapezoid(y), torch.cumulative_trapezoid(y), torch.gradient(y)),
    "pools": lambda y: (
        F.fractional_max_pool2d(y, 2, output_size=4, _random_samples=torch.full((3, 4, 2), 0.5)),
        F.adaptive_max_pool2d(y, 3),
        F.lp_pool2d(y, 2, 2),
    ),
    "windows": lambda y: y * torch.blackman_window(16) * torch.kaiser_window(16),
    "where": lambda y: (
        torch.argwhere(y > 0),
        torch.isclose(y, y + 1e-9),
        torch.vander(y[0, 0, 0]),
    ),
}


class Plain(nn.Module):
    def __init__(self, fn):
        super().__init__()
        self.conv, self.fn = nn.Conv2d(3, 4, 3, padding=1), fn

    def forward(self, x):
        return self.fn(self.conv(x))


def saved_and_loaded(net, x, path):
    """A quantized model and what `load` makes of its file."""
    q = octavo.quantize(net.eval(), x, config=dataclasses.replace(as_config("fast"), min_sqnr=0))
    octavo.save(q, path)
    return q, octavo.load(path)


@pytest.mark.parametrize("name", KEPT)
def test_operators_that_compute_are_saved(name, tmp_path):
    x = torch.randn(3, 3, 16, 16)
    q, loaded = saved_and_loaded(Plain(KEPT[name]), x, tmp_path / "x.octavo")
    torch.testing.assert_close(loaded(x), q(x), rtol=0, atol=0, equal_nan=True)
    assert format_of(tmp_path / "x.octavo") == 1


RANDOM = {
    "bernoulli": lambda y: y * torch.bernoulli(torch.full((16,), 0.5)),
    "randn_like": lambda y: y + torch.randn_like(y),
    "empty_like": lambda y: y + torch.empty_like(y).normal_(),
    "gumbel": lambda y: F.gumbel_softmax(y, dim=1),
    "multinomial": lambda y: y.flatten(1).softmax(1).multinomial(4),
    "permutation": lambda y: y[:, torch.randperm(4)],
}


@pytest.mark.filterwarnings("ignore::octavo.errors.CollapseWarning")  # it is noise
@pytest.mark.parametrize("name", RANDOM)
def test_random_operators_are_saved(name, tmp_path):
    x = torch.randn(3, 3, 16, 16)
    q, loaded = saved_and_loaded(Plain(RANDOM[name]), x, tmp_path / "x.octavo")
    torch.manual_seed(1)
    expected = q(x)
    torch.manual_seed(1)
    assert torch.equal(loaded(x), expected)
    assert not torch.equal(loaded(x), expected)


def test_operators_of_torchvision_are_saved(tmp_path):
    ops = pytest.importorskip("torchvision").ops
    weight = torch.randn(4, 4, 3, 3)
    fns = (
        lambda y: (ops.roi_align(y, BOXES, 4), ops.roi_pool(y, BOXES, 4)),
        lambda y: (ops.ps_roi_align(y, BOXES, 2), ops.ps_roi_pool(y, BOXES, 2)),
        lambda y: ops.deform_conv2d(y, y.repeat(1, 5, 1, 1)[:, :18], weight, padding=1),
        lambda y: ops.nms(y[0, 0, :, :4].abs().cumsum(1), y[0, 1, :, 0], 0.5),
    )
    x = torch.randn(3, 3, 16, 16)
    for fn in fns:
        q, loaded = saved_and_loaded(Plain(fn), x, tmp_path / "x.octavo")
        torch.testing.assert_close(loaded(x), q(x), rtol=0, atol=0)


LOAD_ALONE = """
import sys, torch, octavo
x = torch.ones(3, 3, 16, 16)
assert "torchvision" not in sys.modules
print(octavo.load(sys.argv[1])(x)[0].shape)
"""


def test_torchvision_is_imported_for_a_file_that_needs_it(tmp_path):
    ops = pytest.importorskip("torchvision").ops
    net = Plain(lambda y: (ops.roi_align(y, BOXES, 4),))
    saved_and_loaded(net, torch.randn(3, 3, 16, 16), tmp_path / "x.octavo")
    command = [sys.executable, "-c", LOAD_ALONE, tmp_path / "x.octavo"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "torch.Size([2, 4, 4, 4])"


# ---- graphs inside the graph


class Regions(nn.Module):
    """Layers in branches and loops."""

    def __init__(self, how):
        super().__init__()
        self.how, self.inner, self.head = how, nn.Linear(8, 8), nn.Linear(8, 4)
        self.register_buffer("k", torch.randn(8))

    def forward(self, x):
        return self.head(getattr(self, self.how)(x))

    def branch(self, x):
        return torch.cond(x.sum() > 0, lambda v: self.inner(v), lambda v: self.k - v, (x,))

    def by_size(self, x):
        yes, no = torch.cond(x.shape[0] > 4, lambda v: (v, v + 1), lambda v: (-v, self.k * v), (x,))
        return yes + no

    def nested(self, x):
        def outer(v):
            return torch.cond(v.max() > 3, lambda w: self.inner(w), lambda w: w + self.k, (v,))

        return torch.cond(x.sum() > 0, outer, lambda v: -v, (x,))

    def loop(self, x):
        start = (torch.tensor(0), x)
        return while_loop(lambda i, v: i < 3, lambda i, v: (i + 1, self.inner(v)), start)[1]

    def running(self, x):
        return scan(lambda carry, v: (carry + v, carry * 2), torch.zeros(8), x)[1]

    def mapped(self, x):
        return control_flow_map(lambda v: self.inner(v), x)


@pytest.mark.parametrize("how", ["branch", "by_size", "nested", "loop", "running", "mapped"])
def test_graphs_inside_the_graph_are_saved(how, tmp_path):
    x = torch.randn(16, 8)
    q, loaded = saved_and_loaded(Regions(how), x, tmp_path / "x.octavo")
    assert format_of(tmp_path / "x.octavo") == 2
    assert faults(tmp_path / "x.octavo") == []
    for y in (x[:3].abs(), -x[:3].abs(), x, 9 * x[:5].abs()):
        assert torch.equal(loaded(y), q(y))
    octavo.save(loaded, tmp_path / "again.octavo")
    assert torch.equal(octavo.load(tmp_path / "again.octavo")(x), q(x))


def test_an_autocast_region_that_stays_is_saved(tmp_path):
    q = octavo.quantize(nn.Linear(8, 4), torch.randn(16, 8), config="fast")
    inner, outer = fx.Graph(), fx.Graph()
    x = inner.placeholder("x")
    inner.output((inner.call_function(torch.ops.aten.matmul.default, (x, x)),))
    q.graph_module.add_module("region", fx.GraphModule(nn.Module(), inner))
    arguments = ("cpu", torch.bfloat16, True, None, outer.get_attr("region"))
    result = outer.call_function(
        torch.ops.higher_order.wrap_with_autocast, (*arguments, outer.placeholder("x"))
    )
    outer.output((outer.call_function(operator.getitem, (result, 0)),))
    outer.owning_module = q.graph_module
    q.graph_module = fx.GraphModule(q.graph_module, outer)
    octavo.save(q, tmp_path / "x.octavo")
    x = torch.randn(8, 8)
    got = octavo.load(tmp_path / "x.octavo")(x)
    assert got.dtype is torch.bfloat16 and torch.equal(got, (x.bfloat16() @ x.bfloat16()))
