import pytest
import torch
from torch import nn

import octavo
from octavo.graph import ops
from octavo.sites.rules.shape import Item
from stages import quantize, rows


def test_roll_is_in_float_and_quantized_after():
    class Shifted(nn.Module):
        def __init__(self):
            super().__init__()
            self.norm, self.fc = nn.LayerNorm(8), nn.Linear(8, 8)

        def forward(self, x):
            return self.fc(self.norm(x).roll((1, -2), (1, 2)).flatten(1, 2))

    x = torch.randn(4, 6, 6, 8)
    q = quantize(Shifted(), x)
    assert (rows(q)["roll"].precision, rows(q)["roll"].reason) == ("float", "quantized after it")
    (quantized,) = [n for n in q.graph.nodes if n.target is ops.quantize]
    assert quantized.args[0].target is torch.ops.aten.roll.default
    assert octavo.sqnr(q(x), q.compile()(x)) > 40


@pytest.mark.parametrize("value, precision", [(0.0, "int8"), (1.0, "float")])
def test_padding_with_another_number_than_0_stays_float(value, precision):
    net = nn.Sequential(nn.Conv2d(3, 4, 1), nn.ConstantPad2d(1, value), nn.Conv2d(4, 2, 3))
    q, x = quantize(net, torch.randn(8, 3, 6, 6)), torch.randn(2, 3, 6, 6)
    assert rows(q)["pad"].precision == precision
    assert octavo.sqnr(net(x), q(x)) > 30


def test_an_item_of_nothing_is_refused():
    with pytest.raises(IndexError):
        Item([]).unsupported_reason(None)
