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
