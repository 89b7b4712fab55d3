import collections
import dataclasses
import enum
import json
import os
import signal
import struct
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import nn

import octavo
from networks import NETWORKS
from octavo import FormatError
from octavo.io.file import write_atomically

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
    assert loaded.report() == q.report()


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


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_an_interrupted_write_leaves_the_old_file_whole(tmp_path, error):
    target = tmp_path / "file"
    target.write_bytes(b"old")

    def write(temporary):
        with open(temporary, "wb") as f:
            f.write(b"half of the n")
        raise error

    with pytest.raises(error):
        write_atomically(target, write)
    assert target.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


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
    with pytest.raises(FormatError, match="format 2; this version of Octavo reads format 1") as e:
        octavo.load(edited(stored[1], octavo=lambda d: {"format": 2}))
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
    unnamed = octavo.quantize(Classifier(Unnamed), x)
    assert type(unnamed(x)) is Unnamed
    with pytest.raises(FormatError, match="serialized_type_name="):
        octavo.save(unnamed, path)


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
