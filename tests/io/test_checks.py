import contextlib
import json

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import save_file
from torch import fx, nn

import octavo
from octavo import FormatError
from octavo.io.checks import check_arguments, unique_keys

aten = torch.ops.aten


@pytest.fixture(scope="module")
def parts(tmp_path_factory):
    """A good file: its path, tensors and metadata."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 2))
    path = tmp_path_factory.mktemp("file") / "net.octavo"
    octavo.save(octavo.quantize(net.eval(), torch.rand(8, 3, 8, 8)), path)
    with safe_open(path, "pt") as f:
        return path, {n: f.get_tensor(n) for n in f.keys()}, dict(f.metadata())  # noqa: SIM118


def load_with(parts, graph=None, **tensors):
    path, good, metadata = parts
    if graph is not None:
        metadata = metadata | {"graph": graph if isinstance(graph, str) else json.dumps(graph)}
    other = path.with_name("other.octavo")
    save_file(good | tensors, other, metadata)
    return octavo.load(other)


def graph_of(parts):
    return json.loads(parts[2]["graph"])


def test_a_key_twice_is_refused(parts):
    text = parts[2]["graph"].replace('"op":', '"op": "output", "op":', 1)
    with pytest.raises(FormatError, match="twice"):
        load_with(parts, text)
    assert unique_keys([("a", 1), ("b", 2)]) == {"a": 1, "b": 2}


def test_a_name_twice_is_refused(parts):
    graph = graph_of(parts)
    graph[1]["name"] = graph[0]["name"]
    with pytest.raises(FormatError, match="two nodes"):
        load_with(parts, graph)


@pytest.mark.parametrize("scale", [0.0, -1.0, float("nan"), float("inf")])
def test_scales_that_are_none_are_refused(parts, scale):
    name = next(n for n in parts[1] if n.endswith("weight_scale"))
    with pytest.raises(FormatError, match="scale"):
        load_with(parts, **{name: torch.full_like(parts[1][name], scale)})


@pytest.mark.parametrize("value", [torch.tensor(300), torch.tensor(-1), torch.tensor(0.5)])
def test_zero_points_outside_the_integers_are_refused(parts, value):
    name = next(n for n in parts[1] if n.endswith("zero_point"))
    with pytest.raises(FormatError, match=r"zero_point|integers"):
        load_with(parts, **{name: value})


X = fx.Graph().placeholder("x")


@pytest.mark.parametrize(
    ("target", "args", "kwargs"),
    [
        (aten.relu.default, (), {}),
        (aten.relu.default, (X, X), {}),
        (aten.relu.default, ("x",), {}),
        (aten.relu.default, (X,), {"self": X}),
        (aten.add.Tensor, (X, X), {"beta": 1}),
        (aten.view.default, (X, "ten"), {}),
        (aten.view.default, (X, [1, None]), {}),
        (aten.mean.dim, (X, [1], X, X), {}),
        (aten.conv2d.default, (X, X, "bias"), {}),
    ],
)
def test_arguments_that_the_schema_does_not_have_are_refused(target, args, kwargs):
    with pytest.raises(FormatError):
        check_arguments(target, args, kwargs)


@pytest.mark.parametrize(
    ("target", "args", "kwargs"),
    [
        (aten.relu.default, (X,), {}),
        (aten.add.Tensor, (X, 2.0), {"alpha": 1}),
        (aten.view.default, (X, [X, -1]), {}),
        (aten.conv2d.default, (X, X, None, [1, 1], [0, 0], [1, 1], 1), {}),
        (aten.to.dtype, (X, torch.float32), {}),
        (aten.zeros.default, ([2],), {"device": torch.device("cpu"), "dtype": torch.int8}),
    ],
)
def test_what_the_schema_has_is_taken(target, args, kwargs):
    assert check_arguments(target, args, kwargs) is None


@settings(max_examples=60, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_a_changed_graph_gives_a_model_or_a_format_error(parts, data):
    graph = graph_of(parts)
    kinds = st.sampled_from(["node", "tuple", "list", "slice", "dict", "float", "torch", "a"])
    leaf = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8)
    anything = st.recursive(
        leaf, lambda s: st.lists(s, max_size=3) | st.dictionaries(kinds, s, max_size=2)
    )
    for _ in range(data.draw(st.integers(1, 3))):
        node = graph[data.draw(st.integers(0, len(graph) - 1))]
        key = data.draw(st.sampled_from(["op", "name", "target", "args", "kwargs", "path"]))
        node[key] = data.draw(anything)
    with contextlib.suppress(FormatError):
        assert isinstance(load_with(parts, graph), octavo.QuantizedModel)


@settings(max_examples=60, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_changed_bytes_give_a_model_or_a_format_error(parts, data):
    content = bytearray(parts[0].read_bytes())
    for _ in range(data.draw(st.integers(1, 8))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    other = parts[0].with_name("bytes.octavo")
    other.write_bytes(content)
    with contextlib.suppress(FormatError):
        assert isinstance(octavo.load(other), octavo.QuantizedModel)


def test_deep_nesting_is_refused(parts):
    deep = "[" * 200_000 + "]" * 200_000
    with pytest.raises(FormatError):
        load_with(parts, deep)
