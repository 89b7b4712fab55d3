import pytest
import torch
import torch.nn.functional as F
from torch import nn

import octavo
from octavo import Config, DataError, Quantizer
from octavo.graph.qparams import ACTIVATION, SYMMETRIC_ACTIVATION


class Products(nn.Module):
    """A product of two activations, one of them never negative."""

    def forward(self, x, y):
        return F.softmax(x @ y, -1) @ y


def observed(net, *batches, **settings):
    quantizer = Quantizer(net, config=Config(**settings))
    for batch in batches:
        quantizer.observe(*batch)
    quantizer.quantize()
    return quantizer


def quant(quantizer, name):
    return next(q for n, q in quantizer.quants.items() if n.startswith(name))


def test_operands_of_a_product_have_zero_point_0_and_use_all_integers():
    torch.manual_seed(0)
    quantizer = observed(Products(), (torch.randn(4, 8, 8) * 3, torch.randn(4, 8, 8)))
    softmax, y = quant(quantizer, "softmax").qparams(), quant(quantizer, "y").qparams()
    assert (softmax.spec, softmax.zero_point.item()) == (ACTIVATION, 0)
    assert (y.spec, y.zero_point.item()) == (SYMMETRIC_ACTIVATION, 0)


def test_an_output_of_softmax_is_within_half_a_step_of_256():
    torch.manual_seed(0)
    x, y = torch.randn(4, 8, 8) * 3, torch.randn(4, 8, 8)
    quantizer = observed(Products(), (x, y), observer="minmax")
    qparams = quant(quantizer, "softmax").qparams()
    assert qparams.scale.item() == pytest.approx(F.softmax(x @ y, -1).max().item() / 255, rel=0.05)


def test_the_range_is_searched_again_when_more_was_observed():
    quantizer = observed(nn.Linear(4, 2), (torch.rand(8, 4),))
    x = quant(quantizer, "input")
    first = x.qparams().range
    assert x.qparams().range == first
    quantizer.observe(torch.rand(8, 4) * 100)
    assert x.qparams().range[1] > 10 * first[1]


def test_what_cannot_be_quantized_is_told_by_node():
    quantizer = Quantizer(nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 2)))
    with pytest.raises(DataError, match=r"output of .*NaN or infinity"):
        quantizer.observe(torch.full((2, 4), float("inf")))


def test_public():
    assert octavo.DefaultQuant is octavo.default_quant.DefaultQuant
