import pytest
import torch
from torch import nn

from octavo import ConversionError
from octavo.convert import QuantizedWeights
from octavo.graph.qparams import REDUCED_WEIGHT, WEIGHT


def test_integers_and_scales_by_hand():
    layer = nn.Linear(2, 2)
    layer.weight.data = torch.tensor([[1.27, -0.5], [0.0, 2.54]])
    integers, scale = QuantizedWeights(layer, WEIGHT)("weight", 0)
    assert integers.tolist() == [[127, -50], [0, 127]]
    torch.testing.assert_close(scale, torch.tensor([0.01, 0.02]))


def test_one_scale_for_all_outputs():
    layer = nn.Linear(2, 2)
    layer.weight.data = torch.tensor([[1.27, -0.5], [0.0, 2.54]])
    integers, scale = QuantizedWeights(layer, WEIGHT)("weight", 0, per_channel=False)
    assert integers.tolist() == [[64, -25], [0, 127]]  # 63.5 to even
    torch.testing.assert_close(scale, torch.tensor([0.02, 0.02]))


def test_what_is_returned_is_the_callers_own():
    weights = QuantizedWeights(nn.Linear(3, 2), REDUCED_WEIGHT)
    first, _ = weights("weight", 0)
    first.zero_()
    again, _ = weights("weight", 0)
    assert again.abs().max() == 63


def test_a_weight_that_is_not_finite_is_refused():
    layer = nn.Linear(3, 2)
    layer.weight.data[0, 0] = float("nan")
    with pytest.raises(ConversionError, match="'weight' holds NaN"):
        QuantizedWeights(layer, WEIGHT)("weight", 0)


def test_weights_whose_products_are_added_have_scales_of_one_ratio():
    layer = nn.LSTM(3, 4)
    first, second = QuantizedWeights(layer, WEIGHT).beside("weight_ih_l0", "weight_hh_l0", 0.25)
    torch.testing.assert_close(first[1], second[1] * 0.25)
    for (integers, scale), weight in ((first, layer.weight_ih_l0), (second, layer.weight_hh_l0)):
        error = (integers * scale[:, None] - weight).abs() / scale[:, None]
        assert integers.dtype is torch.int8 and error.max() <= 0.5001
    of_input, of_forget, *_ = second[1].chunk(4)
    assert torch.equal(of_input, of_forget)
    largest = torch.cat([first[0], second[0]], 1).abs().amax(1)
    assert (largest[8:] == 127).all() and (torch.stack(largest[:8].chunk(2)).amax(0) == 127).all()


def test_of_which_none_may_be_infinite():
    layer = nn.LSTM(3, 4)
    layer.weight_hh_l0.data[0, 0] = torch.inf
    with pytest.raises(ConversionError, match="'weight_hh_l0' holds NaN or infinity"):
        QuantizedWeights(layer, WEIGHT).beside("weight_ih_l0", "weight_hh_l0", 0.25)
