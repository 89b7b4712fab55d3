import pytest
import torch
from torch import fx

from octavo.graph import ops
from octavo.graph.qdq_checks import dynamic_input, scale_faults

GOOD = {"scale": torch.tensor(0.1), "zero_point": torch.tensor(3, dtype=torch.int32)}
QUANTIZED = (0, 255, torch.uint8)


def faults(target, *rest, by_name=(), **tensors):
    """Of one node named "node", with so many arguments after scale and zero_point."""
    graph = fx.Graph()
    given = {name: graph.get_attr(name) for name in GOOD}
    named = {name: given.pop(name) for name in by_name}
    arguments = (graph.placeholder("x"), *given.values(), *rest)
    graph.create_node("call_function", target, arguments, named, "node")
    return list(scale_faults(graph, GOOD | tensors))


@pytest.mark.parametrize(
    ("target", "rest"),
    [
        (ops.quantize, QUANTIZED),
        (ops.quantize, (-127, 127, torch.int8)),
        (ops.dequantize, ()),
        *((hint, (0, 255)) for hint in ops.HINTS),
        (torch.ops.aten.relu.default, ()),
    ],
)
def test_what_octavo_makes_has_no_fault(target, rest):
    assert faults(target, *rest) == []


def test_scales_and_zero_points_of_channels():
    tensors = {"scale": torch.tensor([0.1, 2.0]), "zero_point": torch.tensor([0, 0])}
    assert faults(ops.quantize, -127, 127, torch.int8, **tensors) == []
    tensors["scale"][1] = 0
    assert len(faults(ops.quantize, -127, 127, torch.int8, **tensors)) == 1


@pytest.mark.parametrize("scale", [0.0, -1.0, float("nan"), float("inf"), 1])
@pytest.mark.parametrize("target", [t for t in ops.ALL if t not in ops.DYNAMIC])
def test_a_scale_is_positive_and_finite(target, scale):
    rest = {ops.quantize: QUANTIZED, ops.dequantize: ()}.get(target, QUANTIZED[:2])
    found = faults(target, *rest, scale=torch.tensor(scale))
    assert found == ["the scale of 'node' is not positive and finite"]


@pytest.mark.parametrize("by_name", [(), ("zero_point",)])
def test_a_zero_point_is_an_integer_by_position_and_by_name(by_name):
    found = faults(ops.dequantize, by_name=by_name, zero_point=torch.tensor(0.5))
    assert found == ["the zero_point of 'node' is not an integer"]


@pytest.mark.parametrize(
    ("rest", "zero_point"),
    [
        ((0, 256, torch.uint8), 0),
        ((-129, 127, torch.int8), 0),
        ((5, 5, torch.uint8), 5),
        ((-127, 200, torch.int8), 0),
        ((0, 255, torch.int8), 0),
        ((-127, 127, torch.float64), 0),
        ((0.0, 255.0, torch.uint8), 0),
        ((0, 255, torch.uint8), 256),
        ((0, 255, torch.uint8), -1),
        ((-127, 127, torch.int8), -128),
    ],
)
def test_integers_fit_their_type(rest, zero_point):
    found = faults(ops.quantize, *rest, zero_point=torch.tensor(zero_point))
    assert found == ["the integers of 'node' do not fit their type"]


def test_every_fault_is_found():
    tensors = {"scale": torch.tensor(0.0), "zero_point": torch.tensor(0.5)}
    assert len(faults(ops.quantize, 0, 999, torch.uint8, **tensors)) == 3


def test_computed_and_unknown_scales_are_not_checked():
    graph = fx.Graph()
    x = graph.placeholder("x")
    graph.call_function(ops.dequantize, (x, graph.call_function(torch.ops.aten.abs.default, (x,))))
    graph.call_function(ops.dequantize, (x, graph.get_attr("unknown")))
    assert list(scale_faults(graph, {})) == []


def groups(size=16, other=16, same_scale=True):
    """x, and its last `dequantize_groups`."""
    graph = fx.Graph()
    x, y = graph.placeholder("x"), graph.placeholder("y")
    scale = graph.call_function(ops.dynamic_scale, (x, size))
    q = graph.call_function(ops.quantize_groups, (x, scale, other))
    scale = scale if same_scale else graph.call_function(ops.dynamic_scale, (y, size))
    return x, graph.call_function(ops.dequantize_groups, (q, scale, size))


def test_the_input_of_dynamic_rounding():
    x, rounded = groups()
    assert dynamic_input(rounded) == (x, 16)
    assert dynamic_input(x) is dynamic_input(3) is None
    assert list(scale_faults(x.graph, {})) == []


def test_rounding_with_a_scale_of_something_else():
    assert dynamic_input(groups(same_scale=False)[1]) is None
    assert dynamic_input(groups(other=32)[1]) is None


@pytest.mark.parametrize("size", [0, -16, True, 1.5])
def test_a_group_has_a_size(size):
    x, _ = groups(size=size, other=size)
    assert len(list(scale_faults(x.graph, {}))) == 3
