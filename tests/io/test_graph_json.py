import math

import pytest
import torch
from torch import fx

import octavo
from octavo import FormatError
from octavo.graph import ops
from octavo.io.graph_json import (
    CODECS,
    OWN_OPERATORS,
    decode,
    encode,
    find_operator,
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


def test_a_graph_and_back():
    graph = fx.Graph()
    x = graph.placeholder("x")
    scale = graph.get_attr("scale")
    hint = graph.call_function(ops.requantize_hint, (x, scale, scale, 0, 255))
    y = graph.call_function(torch.ops.aten.sum.dim_IntList, (hint, [1]), {"keepdim": True})
    graph.output((y,))
    data = graph_to_json(graph)
    assert data[2]["target"] == "octavo.roundable.default"  # as in files of the first format
    again = graph_from_json(data, {"scale": torch.tensor(1.0)})
    assert graph_to_json(again) == data
    assert [n.target for n in again.nodes] == [n.target for n in graph.nodes]


def test_a_graph_with_another_operator_is_not_written():
    graph = fx.Graph()
    node = graph.call_function(torch.ops.aten.add_.Tensor, (graph.placeholder("x"), 1))
    graph.output((node,))
    with pytest.raises(FormatError, match=r"aten\.add_\.Tensor"):
        graph_to_json(graph)


def test_operators_of_octavo_have_the_names_of_the_first_format():
    assert find_operator("octavo.unrounded.default") is ops.fuse_in_accumulator
    assert set(OWN_OPERATORS.values()) == set(ops.ALL)


@pytest.mark.parametrize(
    "name",
    [
        *("aten.from_file.default", "aten.empty.memory_format", "aten.new_empty.default"),
        *("aten._print.default", "aten.set_.source_Tensor", "aten.resize_.default"),
        *("aten.add.out", "aten.relu.__globals__", "aten.nothing.default", "aten", ""),
        *("quantized.conv2d.new", "octavo.quantize", "operator.methodcaller", "os.system"),
    ],
)
def test_all_others_are_refused(name):
    with pytest.raises(octavo.FormatError, match="not among those a file may hold"):
        find_operator(name)
