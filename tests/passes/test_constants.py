import pytest
import torch
from torch import nn

from octavo.capture.export import capture
from octavo.graph.names import operator_name
from octavo.passes.constants import fold_constants
from stages import rewritten


def tidied(net, *args):
    module, _ = capture(net, args)
    return rewritten(module)


def operators(module):
    return [operator_name(n) for n in module.graph.nodes if n.op == "call_function"]


def test_constants_are_computed_once():
    class Table(nn.Module):
        def __init__(self):
            super().__init__()
            self.table = nn.Parameter(torch.randn(9, 4))

        def forward(self, x):
            return x + self.table[torch.arange(4) * 2].softmax(0).T

    net, x = Table(), torch.randn(2, 4, 4)
    module = tidied(net, x)
    assert "softmax" not in operators(module)
    torch.testing.assert_close(module(x)[0], net(x))


def test_a_mask_made_of_known_sizes_is_a_constant():
    class Windows(nn.Module):
        def forward(self, x):
            mask = x.new_zeros((4, 4))
            mask[:2, 2:] = 1
            return x + mask.masked_fill(mask != 0, -5.0)

    net, x = Windows(), torch.randn(3, 4, 4)
    graph = rewritten(capture(net, (x,))[0])
    assert len([n for n in graph.graph.nodes if n.op == "call_function"]) == 1
    torch.testing.assert_close(graph(x)[0], net(x))


def test_only_graphs_have_nodes():
    with pytest.raises(AttributeError):
        fold_constants(nn.ReLU())
