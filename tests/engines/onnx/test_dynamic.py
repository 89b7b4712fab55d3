import pytest
import torch
from torch import nn

import octavo
from octavo import Config, SiteConfig
from octavo.engines.onnx.dynamic import dynamic_linear, replace_dynamic_layers

onnx = pytest.importorskip("onnx")


def quantized(size, channels=100):
    net = nn.Sequential(nn.Linear(channels, 48), nn.GELU(), nn.Linear(48, 9, bias=False))
    sites = {"Linear": SiteConfig("dynamic", group_size=size)}
    config = Config(sites=sites, min_sqnr=0)
    return octavo.quantize(net, [torch.randn(4, 7, channels) for _ in range(2)], config=config)


@pytest.mark.parametrize(
    ("size", "nodes"),
    [(16, 2), (64, 2), (48, 1), (512, 0), (0, 2)],  # 0: one group each, of 100 and of 48
)
def test_onnx_runtime_rounds_as_the_reference_does(size, nodes, tmp_path):
    q = quantized(size)
    octavo.export(q, tmp_path / "model.onnx")
    found = [n.op_type for n in onnx.load(tmp_path / "model.onnx").graph.node]
    assert found.count("MatMulNBits") == nodes
    fast = q.compile("onnxruntime")
    for batch in (1, 5):
        x = torch.randn(batch, 7, 100)
        assert octavo.sqnr(q(x), fast(x)) > 60


def test_layers_on_other_inputs_stay_as_they_are():
    net = nn.Sequential(nn.Linear(32, 16), nn.ReLU(), nn.Linear(16, 4))
    q = octavo.quantize(net, torch.randn(8, 32), config=Config(min_sqnr=0))
    module = q.graph_module
    replace_dynamic_layers(module)
    assert not module.graph.find_nodes(op="call_function", target=dynamic_linear)


def test_a_weight_that_is_not_int8_is_refused():
    """It stays a float layer on rounded inputs."""
    module = quantized(16).graph_module
    for node in module.graph.find_nodes(op="call_function", target=torch.ops.aten.linear.default):
        weight = node.args[1]
        with module.graph.inserting_before(node):
            node.update_arg(1, module.graph.call_function(torch.ops.aten.clone.default, (weight,)))
    replace_dynamic_layers(module)
    assert not module.graph.find_nodes(op="call_function", target=dynamic_linear)
