from xml.etree import ElementTree

import onnx
import pytest
import torch
from torch import nn

import octavo
from octavo.io.facts import describe_layers, facts_by_node, facts_of


@pytest.fixture(scope="module")
def q():
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4)
    )
    return octavo.quantize(net.eval(), torch.randn(32, 3, 12, 12))


def lines(q):
    return {r.operator: f"{r.operator}: int8, {r.sqnr:.1f} dB" for r in q.report().rows}


def test_every_operator_of_a_row_has_its_line(q):
    found = {n.name: fact for n, fact in facts_by_node(q.graph, q.report()).items()}
    assert found["conv2d"] == found["relu"] == lines(q)["conv2d + relu"]
    assert found["linear"] == lines(q)["linear"]
    assert found["adaptive_avg_pool2d"] == lines(q)["adaptive_avg_pool2d"]
    placeholder, *_ = q.graph.nodes
    assert placeholder.name not in found
    assert facts_of(q.report())["output"] == f"{q.sqnr:.1f} dB"


def test_an_onnx_file_has_it_at_each_operator_and_no_path_of_this_machine(q, tmp_path):
    octavo.export(q, tmp_path / "m.onnx")
    model = onnx.load(tmp_path / "m.onnx")
    found = {n.op_type: {p.key: p.value for p in n.metadata_props} for n in model.graph.node}
    assert found["Conv"] == {"octavo": lines(q)["conv2d + relu"]}
    assert found["Gemm"] == {"octavo": lines(q)["linear"]}
    assert b".py" not in (tmp_path / "m.onnx").read_bytes()
    assert {p.key: p.value for p in model.metadata_props}["octavo.output"] == f"{q.sqnr:.1f} dB"


def test_an_ir_has_it_at_each_layer(q, tmp_path):
    octavo.export(q, tmp_path / "m.xml")
    layers = ElementTree.parse(tmp_path / "m.xml").iter("layer")
    found = {x.get("name"): x.find("data") for x in layers}
    assert found["1/relu"].get("octavo") == lines(q)["conv2d + relu"]
    assert found["4/linear"].get("octavo") == lines(q)["linear"]


def test_a_file_that_is_no_ir(q, tmp_path):
    (tmp_path / "m.xml").write_text("no")
    with pytest.raises(ElementTree.ParseError):
        describe_layers(tmp_path / "m.xml", {})
