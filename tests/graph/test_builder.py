import pytest
import torch
from torch import nn

from octavo.graph.builder import NodeBuilder
from octavo.graph.names import module_path
from octavo.graph.tensors import value_of
from stages import passed

aten = torch.ops.aten


def builder_at(module, target):
    node = next(n for n in module.graph.nodes if n.target is target)
    return node, NodeBuilder(module.graph, node)


def test_new_nodes_have_the_shape_and_the_module_of_the_one_they_replace():
    net = nn.Sequential(nn.Linear(4, 3), nn.ReLU())
    module = passed(net, torch.rand(5, 4))
    relu, build = builder_at(module, aten.relu.default)
    with module.graph.inserting_before(relu):
        new = build(aten.transpose.int, relu.args[0], 0, 1)
        size = build.size(relu.args[0], 1)
        rows = build.size(relu.args[0], 0)
    assert value_of(new).shape[0] == size == 3
    assert module_path(new) == "1"
    assert rows.target is aten.sym_size.int


def test_arguments_that_an_operator_cannot_take_are_refused():
    module = passed(nn.ReLU(), torch.rand(5, 4))
    relu, build = builder_at(module, aten.relu.default)
    with pytest.raises((RuntimeError, IndexError)):
        build(aten.transpose.int, relu.args[0], 0, 7)
