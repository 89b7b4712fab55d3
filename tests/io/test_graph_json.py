import json
import math
import operator

import pytest
import torch
from torch import fx, nn

from octavo import FormatError
from octavo.graph import ops
from octavo.graph.saveable import PLAIN_TYPES
from octavo.graph.tensors import set_buffer
from octavo.io.graph_json import (
    CODECS,
    DEEPEST,
    TORCH_VALUES,
    decode,
    encode,
    graph_from_json,
    graph_to_json,
)

X = fx.Graph().placeholder("x")
VALUES = {
    "node": X,
    "tuple": (1, (X, "text")),
    "list": [None, True, [2.5]],
    "slice": slice(0, X, None),
    "dict": {"a": [1], "b": {"c": X}},
    "float": -math.inf,
    "complex": 0.5 - 2j,
    "torch": torch.channels_last,
    "device": torch.device("cpu"),
}


@pytest.mark.parametrize("kind", CODECS)
def test_each_codec_gives_the_value_again(kind):
    data = encode(VALUES[kind])
    assert list(data) == [kind]
    again = decode(data, {"x": X})
    assert type(again) is type(VALUES[kind])
    assert again == VALUES[kind]


@pytest.mark.parametrize("value", [None, True, 3, 2.5, "text"])
def test_plain_values_are_written_as_they_are(value):
    assert encode(value) is value
    assert decode(value, {}) is value


def test_no_number_and_types_of_torch():
    assert math.isnan(decode(encode(math.nan), {}))
    for value in (torch.uint8, torch.strided, torch.preserve_format):
        assert decode(encode(value), {}) is value


@pytest.mark.parametrize("value", [torch.zeros(1), {1, 2}, print, object()])
def test_other_values_are_not_written(value):
    with pytest.raises(FormatError, match=f"of type {type(value).__name__} cannot be saved"):
        encode([value])


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"code": "1"}, "unknown kind 'code'"),
        ({"torch": "load"}, "'load' is not a dtype"),
        ({"torch": ["uint8"]}, "is not a dtype"),
        ({"device": "vulkan"}, "'vulkan' is not a device"),
        ({"device": 3}, "'3' is not a device"),
        ({"dict": {"a b": 1}}, "'a b' is not a name"),
        ({"dict": {"class": 1}}, "'class' is not a name"),
        ({}, "a dict that is not an argument"),
        ({"list": [], "tuple": []}, "a dict that is not an argument"),
        ([1, 2], "a list that is not an argument"),
        ({"tuple": [[1]]}, "a list that is not an argument"),
    ],
)
def test_other_data_is_refused(data, message):
    with pytest.raises(FormatError, match=message):
        decode(data, {})


def test_arguments_that_can_be_encoded_are_those_that_are_said_to_be():
    """All but the containers and nodes, which are looked into."""
    types = {
        t for c in CODECS.values() for t in (c.types if isinstance(c.types, tuple) else (c.types,))
    }
    assert types - set(PLAIN_TYPES) == {fx.Node, tuple, list, slice, dict}
    assert set(PLAIN_TYPES) - types == {type(None), bool, int, str}


def test_values_are_dtypes_layouts_and_memory_formats():
    assert TORCH_VALUES["uint8"] is torch.uint8
    assert TORCH_VALUES["channels_last"] is torch.channels_last
    assert "load" not in TORCH_VALUES and "float" not in TORCH_VALUES


def root(**tensors):
    module = nn.Module()
    for name, value in tensors.items():
        module.register_buffer(name, value)
    return module


def test_a_graph_and_back():
    graph = fx.Graph()
    x = graph.placeholder("x")
    qparams = (graph.get_attr("scale"), graph.get_attr("zero_point"))
    hint = graph.call_function(ops.requantize_hint, (x, *qparams, 0, 255))
    y = graph.call_function(torch.ops.aten.sum.dim_IntList, (hint, [1]), {"keepdim": True})
    graph.output((y,))
    data = graph_to_json(graph)
    assert data[3]["target"] == "octavo.roundable.default"  # as in files of the first format
    again = graph_from_json(data, root(scale=torch.tensor(1.0), zero_point=torch.tensor(0)))
    assert graph_to_json(again) == data
    assert [n.target for n in again.nodes] == [n.target for n in graph.nodes]


def test_a_graph_with_another_operator_is_not_written():
    graph = fx.Graph()
    node = graph.call_function(torch.ops.aten.add_.Tensor, (graph.placeholder("x"), 1))
    graph.output((node,))
    with pytest.raises(FormatError, match=r"aten\.add_\.Tensor"):
        graph_to_json(graph)


# ---- graphs in graphs


def branches(depth=1):
    """A module that negates its input or adds a tensor to it, `depth` conditions deep."""
    yes = fx.Graph()
    x = yes.placeholder("x")
    yes.output((yes.call_function(torch.ops.aten.add.Tensor, (x, yes.get_attr("k"))),))
    no = fx.Graph()
    no.output((no.call_function(torch.ops.aten.neg.default, (no.placeholder("x"),)),))
    inner = branches(depth - 1) if depth > 1 else fx.GraphModule(nn.Module(), no)
    outer = fx.Graph()
    x = outer.placeholder("x")
    positive = outer.call_function(torch.ops.aten.gt.Scalar, (x, 0))
    chosen = outer.call_function(torch.ops.aten.all.default, (positive,))
    holder = nn.Module()
    holder.true_graph = fx.GraphModule(root(k=torch.tensor(float(depth))), yes)
    holder.false_graph = inner
    graphs = (outer.get_attr("true_graph"), outer.get_attr("false_graph"))
    result = outer.call_function(torch.ops.higher_order.cond, (chosen, *graphs, (x,)))
    outer.output((outer.call_function(operator.getitem, (result, 0)),))
    return fx.GraphModule(holder, outer)


def loaded(data, module):
    again = nn.Module()
    for name, value in module.named_buffers():
        set_buffer(again, name, value)
    return fx.GraphModule(again, graph_from_json(data, again))


@pytest.mark.parametrize("depth", [1, 3])
def test_graphs_inside_a_graph_and_back(depth):
    module = branches(depth)
    again = loaded(graph_to_json(module.graph), module)
    for x in (torch.ones(2), -torch.ones(2)):
        expected = x + depth if x[0] > 0 else -x
        assert torch.equal(module(x)[0], expected)
        assert torch.equal(again(x)[0], expected)


def test_deeper_graphs_than_save_writes_are_refused():
    module = branches(DEEPEST + 1)
    with pytest.raises(FormatError, match="larger or deeper"):
        loaded(graph_to_json(module.graph), module)


def changed(change):
    module = branches()
    data = json.loads(json.dumps(graph_to_json(module.graph)))
    change(data, next(n for n in data if n["target"] == "higher_order.cond"))
    return loaded(data, module)


def inner(data):
    return next(n for n in data if n["target"] == "true_graph")


CHANGES = {
    "operator inside": lambda d, cond: inner(d)["graph"][-2].update(target="os.system"),
    "tensor of the outer graph": lambda d, cond: inner(d)["graph"][1].update(target="true_graph.k"),
    "method inside": lambda d, cond: inner(d)["graph"][1].update(target="forward.__globals__"),
    "name inside": lambda d, cond: inner(d)["graph"][0].update(target="x): import os #"),
    "no output": lambda d, cond: inner(d)["graph"].pop(),
    "empty": lambda d, cond: inner(d).update(graph=[]),
    "one path twice": lambda d, cond: d.insert(3, inner(d) | {"name": "again"}),
    "path of a method": lambda d, cond: inner(d).update(target="forward"),
    "path below another": lambda d, cond: inner(d).update(target="false_graph.true_graph"),
    "graph of a call": lambda d, cond: inner(d).update(op="call_function"),
    "other operator": lambda d, cond: cond.update(target="higher_order.flex_attention"),
    "wrapper": lambda d, cond: cond.update(target="higher_order.triton_kernel_wrapper_mutation"),
    "no graphs": lambda d, cond: cond.update(args={"tuple": cond["args"]["tuple"][:1]}),
    "a text for a graph": lambda d, cond: cond["args"]["tuple"].__setitem__(1, "os.system"),
    "a call for a graph": lambda d, cond: cond["args"]["tuple"].__setitem__(
        1, {"node": "gt_scalar"}
    ),
    "keywords": lambda d, cond: cond.update(kwargs={"dict": {"mode": 1}}),
    "code for a device": lambda d, cond: cond.update(
        target="higher_order.wrap_with_autocast",
        args={"tuple": ["import os", None, True, None, {"node": "true_graph"}]},
    ),
}


@pytest.mark.parametrize("name", CHANGES)
def test_other_graphs_inside_a_graph_are_refused(name):
    with pytest.raises((FormatError, KeyError, ValueError)):  # octavo.load makes them FormatErrors
        changed(CHANGES[name])
