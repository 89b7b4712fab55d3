import pytest
import torch
from torch import nn

import octavo
from octavo.capture.export import capture
from stages import rewritten

aten = torch.ops.aten
SIZES = {"b": 3, "h": 2, "q": 4, "k": 5, "d": 6, "e": 7}
PRODUCTS = [
    "bqhd,bkhd->bhqk",
    "bhqk,bkhd->bqhd",
    "bqd,bkd",
    "bqd,de->bqe",
    "bqh,bkh->bkq",
    "bqhd,bkhd->bqk",
    "bqd,bd->bq",
    "bd,be->bde",
    "b h q d, b h k d -> b h q k",
]
OTHERS = ["bqd,bqd->bd q", "bq,bk->k", "bqq,bqd->bqd", "...d,de->...e", "bqd->bdq", "bq,bq->"]


class Einsum(nn.Module):
    def __init__(self, equation):
        super().__init__()
        self.equation = equation

    def forward(self, *operands):
        return torch.einsum(self.equation, *operands)


def operands(equation):
    words = equation.replace(" ", "").replace("...", "b").split("->")[0].split(",")
    return [torch.randn([SIZES[c] for c in w]) for w in words]


@pytest.mark.parametrize("equation", PRODUCTS)
def test_a_product_becomes_a_matmul(equation):
    net, args = Einsum(equation), operands(equation)
    graph = rewritten(capture(net, tuple(args))[0])
    targets = [n.target for n in graph.graph.nodes]
    assert aten.matmul.default in targets
    assert aten.einsum.default not in targets
    torch.testing.assert_close(graph(*args)[0], net(*args))


@pytest.mark.parametrize("equation", OTHERS)
def test_what_is_no_product_keeps_its_meaning(equation):
    net, args = Einsum(equation), operands(equation)
    torch.testing.assert_close(rewritten(capture(net, tuple(args))[0])(*args)[0], net(*args))


@pytest.mark.parametrize("equation", ["bqhd,bkhd->bhqk", "bqhd,bkhd->bqk"])
def test_in_int8_on_both_engines_at_another_batch_size(equation):
    net, args = Einsum(equation), operands(equation)
    quantized = octavo.quantize(net, tuple(args))
    assert quantized.report().int8_share == 1
    other = [a[:2] for a in args]
    for run in (quantized, quantized.compile()):
        assert octavo.sqnr(net(*other), run(*other)) > 30


def test_operands_that_do_not_fit_are_refused():
    with pytest.raises(octavo.DataError, match="does not take this call"):
        capture(Einsum("bq,qk->bk"), (torch.rand(3, 4), torch.rand(5, 6)))
