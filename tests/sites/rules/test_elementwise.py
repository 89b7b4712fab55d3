import pytest
import torch
import torch.nn.functional as F
from torch import nn

import octavo
from octavo.graph import ops
from stages import quantize, rows


class Join(nn.Module):
    def __init__(self, join):
        super().__init__()
        self.a, self.b, self.last = nn.Conv2d(3, 8, 1), nn.Conv2d(3, 8, 1), nn.Conv2d(8, 4, 1)
        self.join = join

    def forward(self, x):
        return self.last(self.join(self.a(x), self.b(x)))


JOINS = {
    "add": lambda a, b: a + b,
    "add + relu": lambda a, b: F.relu(a + b),
    "mul": lambda a, b: a * b,
    "cat": lambda a, b: torch.cat([a[:, :4], b[:, 4:]], 1),
}


@pytest.mark.parametrize("kind", JOINS)
def test_joins_of_two_activations(kind):
    net, x = Join(JOINS[kind]), torch.randn(4, 3, 8, 8)
    q = quantize(net, x)
    assert rows(q)[kind].precision == "int8"
    assert octavo.sqnr(net(x), q(x)) > 28
    assert octavo.sqnr(q(x), q.compile()(x)) > 35


@pytest.mark.parametrize("shared", [False, True])
def test_an_add_takes_the_last_convolution_unrounded_unless_others_read_it(shared):
    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.stem, self.a, self.last = (nn.Conv2d(3, 3, 3, padding=1) for _ in range(3))

        def forward(self, x):
            x = self.stem(x)
            y = self.a(x)
            total = self.last(x + y)
            return (total, y) if shared else total

    q = quantize(Block(), torch.randn(4, 3, 8, 8))
    (add,) = [n for n in q.graph.nodes if n.target is torch.ops.aten.add.Tensor]
    kinds = [n.target for n in add.args[:2]]
    assert kinds == [ops.dequantize, ops.dequantize if shared else ops.fuse_in_accumulator]
    assert all(n.users for n in q.graph.nodes if n.op != "output")
    assert rows(q)["add"].precision == "int8"


def test_an_add_that_layer_norm_reads_stays_float():
    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b, self.norm = nn.Linear(8, 8), nn.Linear(8, 8), nn.LayerNorm(8)

        def forward(self, x):
            return self.b(self.norm(x + self.a(x)))

    q = quantize(Block(), torch.randn(4, 5, 8))
    assert (rows(q)["add"].precision, rows(q)["add"].reason) == (
        "float",
        "not between convolutions",
    )


def test_operands_that_do_not_broadcast_are_refused():
    class Sum(nn.Module):
        def forward(self, x, y):
            return x + y

    with pytest.raises(octavo.DataError, match="does not take"):
        octavo.quantize(Sum(), (torch.rand(4, 3), torch.rand(4, 5)))
