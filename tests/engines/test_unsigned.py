import copy

import torch
from torch import nn

import octavo
from networks import calls, make
from octavo.engines.unsigned import make_unsigned


def dtypes(module):
    return {
        n.args[5]
        for n in module.graph.find_nodes(op="call_function", target=octavo.graph.ops.quantize)
    }


def test_the_numbers_stay_the_same_to_a_bit():
    net, inputs = make("transformer")
    q = octavo.quantize(net, calls(inputs))
    module = copy.deepcopy(q.graph_module)
    make_unsigned(module)
    module.recompile()
    assert dtypes(q.graph_module) == {torch.uint8, torch.int8}
    assert dtypes(module) == {torch.uint8}
    (x,), _ = inputs(3)
    assert torch.equal(module(x)[0], q(x))


def test_a_graph_of_bytes_is_left_alone():
    q = octavo.quantize(nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU()), torch.rand(4, 3, 8, 8))
    module = copy.deepcopy(q.graph_module)
    make_unsigned(module)
    assert str(module.graph) == str(q.graph_module.graph)


def test_a_zero_point_of_several_quantizes_moves_once():
    q = octavo.quantize(nn.Linear(4, 4), torch.randn(8, 4))
    module = copy.deepcopy(q.graph_module)
    (node,) = module.graph.find_nodes(op="call_function", target=octavo.graph.ops.quantize)
    node.args = (*node.args[:3], -127, 127, torch.int8)
    with module.graph.inserting_after(node):
        zero_point = module.graph.get_attr(node.args[2].target)
        args = (node.args[0], node.args[1], zero_point, -127, 127)
        hint = module.graph.call_function(octavo.graph.ops.requantize_hint, args)
    before = octavo.graph.tensors.attribute(module, zero_point.target).item()
    make_unsigned(module)
    assert octavo.graph.tensors.attribute(module, zero_point.target).item() == before + 128
    assert (node.args[3:], hint.args[3:]) == ((1, 255, torch.uint8), (1, 255))


def test_a_float_graph_is_left_alone():
    module = torch.fx.symbolic_trace(nn.Linear(4, 2))
    before = str(module.graph)
    make_unsigned(module)
    assert str(module.graph) == before
