import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

import octavo
from octavo.graph.operators import ALIASES, OPERATORS, Kind, is_operator, multiply_adds, operator_of

LAYERS = {
    "conv1d": (nn.Conv1d(4, 6, 3), (4, 9)),
    "conv2d grouped": (nn.Conv2d(4, 6, 3, groups=2), (4, 9, 9)),
    "conv3d": (nn.Conv3d(4, 6, 3), (4, 5, 5, 5)),
    "transposed": (nn.ConvTranspose2d(4, 6, 3, stride=2), (4, 5, 5)),
    "linear": (nn.Linear(4, 6), (7, 4)),
}


@pytest.mark.parametrize("kind", LAYERS)
def test_against_pytorchs_own_count(kind):
    layer, shape = LAYERS[kind]
    x = torch.rand(3, *shape)
    quantizer = octavo.Quantizer(layer)
    with FlopCounterMode(display=False) as counter:
        layer(x)
    quantizer.observe(x)
    assert list(quantizer.ranges.macs.values()) == [counter.get_total_flops() // 2 // 3]


def test_attention_against_pytorchs_own_count():
    class Attention(nn.Module):
        def forward(self, q, k, v):
            return F.scaled_dot_product_attention(q, k, v)

    q, k, v = torch.rand(2, 3, 5, 8), torch.rand(2, 3, 7, 8), torch.rand(2, 3, 7, 8)
    quantizer = octavo.Quantizer(Attention())
    quantizer.observe(q, k, v)
    assert sum(quantizer.ranges.macs.values()) == 2 * 3 * 5 * 7 * 8


def test_other_operators_are_no_work():
    node = torch.fx.Graph().call_function(torch.ops.aten.relu.default)
    assert multiply_adds(node, torch.rand(3), [torch.rand(3)]) == 0


def test_an_operator_without_its_inputs_is_refused():
    node = torch.fx.Graph().call_function(torch.ops.aten.conv2d.default)
    with pytest.raises(IndexError):
        multiply_adds(node, torch.rand(3), [])


@pytest.mark.parametrize("kind, gates", [(nn.LSTM, 4), (nn.GRU, 3), (nn.RNN, 1)])
def test_recurrent_layers_by_hand(kind, gates):
    quantizer = octavo.Quantizer(kind(4, 6, num_layers=2))
    quantizer.observe(torch.rand(7, 3, 4))
    first, second = gates * 6 * (4 + 6), gates * 6 * (6 + 6)
    assert (
        sum(quantizer.ranges.macs.values()) == 7 * 3 * (first + second) // 7
    )  # of 7 in dimension 0


@pytest.mark.parametrize("name", OPERATORS)
def test_every_row_is_an_operator_of_pytorch(name):
    assert OPERATORS[name].name == name
    assert getattr(torch.ops.aten, name).overloads()


def test_no_alias_stands_for_two_operators():
    aliases = [a for row in OPERATORS.values() for a in row.aliases]
    assert len(aliases) == len(set(aliases)) == len(ALIASES)


def test_a_node_is_found_by_its_operator_in_any_overload():
    graph = torch.fx.Graph()
    x = graph.placeholder("x")
    bilinear = graph.call_function(torch.ops.aten.upsample_bilinear2d.vec, (x, [4, 4], False, None))
    assert operator_of(bilinear).kind is Kind.REDUCTION
    assert is_operator(bilinear, "upsample_bilinear2d")
    assert operator_of(x).kind is None and not is_operator(x, "upsample_bilinear2d")
