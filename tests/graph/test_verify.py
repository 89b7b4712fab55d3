"""Each fault that verify knows is put into a graph that has none."""

import operator

import pytest
import torch
from torch import fx, nn

import octavo
from octavo import ConversionError
from octavo.capture.export import capture
from octavo.graph import ops
from octavo.graph.verify import STAGES, checkpoint, graph_text, verify
from stages import converted, passed

aten = torch.ops.aten


@pytest.fixture
def emitted():
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(64, 2))
    return converted(net, [torch.rand(4, 3, 6, 6)]).module


def test_a_good_graph_passes(emitted):
    assert verify(emitted, "emit") is verify(emitted, "tune") is None
    assert verify(passed(nn.Linear(3, 2), torch.rand(4, 3)), "passes") is None


def test_a_stage_that_does_not_exist_is_refused(emitted):
    with pytest.raises(ConversionError, match="choose one of capture, passes"):
        verify(emitted, "emitting")
    assert "emit" in STAGES


def test_a_missing_tensor(emitted):
    name = next(n.target for n in emitted.graph.nodes if n.op == "get_attr")
    parent, _, last = name.rpartition(".")
    delattr(emitted.get_submodule(parent), last)
    with pytest.raises(ConversionError, match=f"reads '{name}'"):
        verify(emitted, "emit")


@pytest.mark.parametrize("scale", [0.0, -1.0, float("inf"), float("nan")])
def test_a_scale_that_is_not_positive(emitted, scale):
    name = next(n for n, _ in emitted.named_buffers() if n.endswith(".scale"))
    emitted.get_buffer(name).fill_(scale)
    with pytest.raises(ConversionError, match="not positive and finite"):
        verify(emitted, "emit")


def test_integers_that_do_not_come_from_a_quantize(emitted):
    node = next(n for n in emitted.graph.nodes if n.target is ops.quantize)
    node.replace_all_uses_with(node.args[0])
    with pytest.raises(ConversionError, match="is not quantized"):
        verify(emitted, "emit")


def test_integers_read_without_their_scale(emitted):
    node = next(n for n in emitted.graph.nodes if n.target is ops.dequantize)
    reader = next(iter(node.users))
    reader.replace_input_with(node, node.args[0])
    with pytest.raises(ConversionError, match="integers without their scale"):
        verify(emitted, "tune")


def test_an_operator_that_writes_in_place():
    module = passed(nn.Sequential(nn.Linear(3, 3), nn.ReLU()), torch.rand(4, 3))
    relu = next(n for n in module.graph.nodes if n.target is aten.relu.default)
    relu.target = aten.relu_.default
    with pytest.raises(ConversionError, match=r"relu.* writes in place"):
        verify(module, "passes")


def test_an_argument_that_is_not_in_its_place():
    module, _ = capture(nn.Conv2d(3, 4, 3), (torch.rand(2, 3, 6, 6),))
    with pytest.raises(ConversionError, match="has 3 arguments, not 7"):
        verify(module, "passes")


def test_checks_and_prints_as_the_variable_asks(monkeypatch, capsys, emitted):
    next(iter(emitted.buffers())).fill_(-1.0)
    monkeypatch.setenv("OCTAVO_DEBUG", "")
    checkpoint(emitted, "emit")
    monkeypatch.setenv("OCTAVO_DEBUG", "1")
    with pytest.raises(ConversionError):
        checkpoint(emitted, "emit")
    monkeypatch.setenv("OCTAVO_DEBUG", "passes")
    octavo.quantize(nn.Linear(4, 2), torch.rand(8, 4), config="fast")
    printed = capsys.readouterr().err
    assert [f"---- after {s}" in printed for s in STAGES] == [True, True, False, True, False]
    assert "linear = linear(input_1, weight, bias)" in printed


def test_a_graph_as_text():
    graph = fx.Graph()
    x = graph.placeholder("x")
    parts = graph.call_function(aten.chunk.default, (x, 2), {"dim": 1})
    graph.output((graph.call_function(operator.getitem, (parts, 0)),))
    assert graph_text(graph).splitlines() == [
        "x = input",
        "chunk_default = chunk(x, 2, dim=1)",
        "getitem = getitem(chunk_default, 0)",
        "return (getitem,)",
    ]


def dynamic():
    net = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 2))
    return converted(net, [torch.rand(4, 6)], activations="dynamic").module


def test_dynamic_integers():
    assert verify(dynamic(), "emit") is None


def test_dynamic_integers_with_another_scale():
    module = dynamic()
    first, second = module.graph.find_nodes(op="call_function", target=ops.dequantize_groups)
    second.update_arg(1, first.args[1])
    with pytest.raises(ConversionError, match="not quantized with its scale"):
        verify(module, "emit")


def test_dynamic_integers_without_a_scale():
    module = dynamic()
    node = module.graph.find_nodes(op="call_function", target=ops.dequantize_groups)[0]
    node.replace_all_uses_with(node.args[0])
    with pytest.raises(ConversionError, match="reads integers without their scale"):
        verify(module, "emit")
