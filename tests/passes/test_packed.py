import pytest
import torch
from torch import nn

from octavo.graph.names import operator_name
from octavo.passes.packed import split_packed_linears
from stages import passed


class Packed(nn.Module):
    """Attention whose q, k and v come from one linear layer, taken apart in several ways."""

    def __init__(self, form, used=3):
        super().__init__()
        self.qkv, self.form, self.used = nn.Linear(8, 24), form, used

    def forward(self, x):
        n, length, width = x.shape
        y = self.qkv(x)
        if self.form == "chunk":
            q, k, v = y.chunk(3, -1)
        elif self.form == "split":
            q, k, v = y.split([8, 8, 8], -1)
        else:
            q, k, v = y.view(n, length, 3, width).permute(2, 0, 1, 3).unbind(0)
        scores = q @ k.transpose(1, 2) if self.used > 1 else q + k
        return scores.softmax(-1) @ v if self.used > 2 else (scores.sum() + v)


def linears(module):
    return [n for n in module.graph.nodes if operator_name(n) == "linear"]


@pytest.mark.parametrize("form", ["chunk", "split", "unbind"])
def test_each_part_becomes_a_linear_layer_of_its_own(form):
    net, x = Packed(form), torch.randn(3, 5, 8)
    module = passed(net, x)
    assert len(linears(module)) == 3
    other = torch.randn(7, 5, 8)
    torch.testing.assert_close(module(other)[0], net(other))


def test_parts_that_are_no_operands_of_products_stay_together():
    net, x = Packed("chunk", used=1), torch.randn(3, 5, 8)
    module = passed(net, x)
    assert len(linears(module)) == 1
    torch.testing.assert_close(module(x)[0], net(x))


def test_only_graphs_have_nodes():
    with pytest.raises(AttributeError):
        split_packed_linears(nn.Linear(8, 24))
