import pytest
import torch
from torch import nn

from octavo.graph.names import operator_name
from octavo.passes.identity import remove_identities
from stages import passed

aten = torch.ops.aten


def operators(module):
    return [operator_name(n) for n in module.graph.nodes if n.op == "call_function"]


def test_what_does_nothing_at_inference_is_gone():
    class Idle(nn.Module):
        def forward(self, x):
            x = nn.functional.dropout(x, 0.5, self.training).contiguous().clone().detach()
            return (x + 1).view(-1)

    x = torch.rand(3, 4)
    module = passed(Idle(), x)
    assert operators(module) == ["add", "reshape"]
    assert torch.equal(module(x)[0], (x + 1).view(-1))


def test_a_copy_of_what_is_written_to_later_is_kept():
    class Counted(nn.Module):
        def __init__(self):
            super().__init__()
            self.register_buffer("count", torch.zeros(3))

        def forward(self, x):
            before = self.count.clone()
            self.count.add_(1)
            return x + before

    module = passed(Counted(), torch.rand(2, 3))
    assert "clone" in operators(module) or "copy_" in operators(module)


def test_only_graphs_have_nodes():
    with pytest.raises(AttributeError):
        remove_identities(nn.Identity())
