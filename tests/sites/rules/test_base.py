import pytest
import torch
import torch.nn.functional as F
from torch import nn

import octavo
from stages import quantize, rows


@pytest.mark.parametrize(
    ("fn", "operator", "reason"),
    [
        (lambda x: torch.cumsum(x, 1), "cumsum", "no rule for cumsum"),
        (lambda x: x + 1, "add", "has a constant operand"),
        (lambda x: F.pad(x, (1, 1), value=3.0), "pad", "pads with 3.0, not 0"),
        (lambda x: x.transpose(1, 2), "transpose", "no int8 operator reads its output"),
    ],
)
def test_what_stays_float_says_why(fn, operator, reason):
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv1d(3, 4, 1)

        def forward(self, x):
            return fn(self.conv(x))

    net, x = Net(), torch.randn(4, 3, 8)
    q = quantize(net, x)
    assert (rows(q)[operator].precision, rows(q)[operator].reason) == ("float", reason)
    assert octavo.sqnr(net(x), q(x)) > 28


def test_a_weight_that_is_computed_stays_float():
    class Scaled(nn.Module):
        def forward(self, x):
            return F.linear(x, x.mean(0, keepdim=True).expand(3, -1) * 2)

    q = quantize(Scaled(), torch.randn(4, 8))
    assert rows(q)["linear"].precision == "float"
    assert "computed by the model" in rows(q)["linear"].reason


def test_adding_an_operator_takes_a_few_lines():
    """The README's example."""
    table = dict(octavo.DEFAULT_PATTERNS)
    try:

        @octavo.register_pattern(nn.ELU)
        class Elu(octavo.FloatOp):
            """elu in float, between int8 neighbours."""

        net = nn.Sequential(nn.Conv2d(3, 8, 1), nn.ELU(), nn.Conv2d(8, 4, 1))
        x = torch.randn(4, 3, 8, 8)
        q = quantize(net, x)
        assert rows(q)["elu"].reason == "between int8 operators"
        assert octavo.sqnr(net(x), q(x)) > 30
        assert octavo.sqnr(q(x), q.compile()(x)) > 40
    finally:
        octavo.DEFAULT_PATTERNS.clear()
        octavo.DEFAULT_PATTERNS.update(table)


def test_a_rule_that_asks_for_an_unobserved_value_is_told():
    class Greedy(octavo.Rule):
        def emit(self, emitter):
            return emitter.load_arg(self.root.args[1])

    quantizer = octavo.Quantizer(nn.Linear(3, 3), patterns={nn.Linear: Greedy})
    quantizer.observe(torch.rand(2, 3))
    with pytest.raises(octavo.ConversionError, match="nothing asked for its range"):
        quantizer.quantize()
