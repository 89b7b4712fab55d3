import pytest
import torch
import torch.nn.functional as F
from torch import nn

from octavo.capture.export import capture
from octavo.passes.arguments import complete_arguments
from stages import rewritten


def tidied(net, *args):
    module, _ = capture(net, args)
    return rewritten(module)


def test_every_argument_is_in_its_place():
    class Short(nn.Module):
        def forward(self, x):
            return F.max_pool2d(x, 2)

    module = tidied(Short(), torch.rand(2, 3, 4, 4))
    (node,) = [n for n in module.graph.nodes if n.op == "call_function"]
    assert list(node.args[1:]) == [[2, 2], [], [0, 0], [1, 1], False]


def test_only_graphs_have_nodes():
    with pytest.raises(AttributeError):
        complete_arguments(nn.ReLU())
