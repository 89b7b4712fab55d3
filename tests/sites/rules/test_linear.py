import pytest
import torch
from torch import nn

import octavo
from stages import quantize


@pytest.mark.parametrize("high, signed", [(4.0, True), (4.8, True), (5.2, False)])
@pytest.mark.parametrize("layer", [nn.Linear(4, 3), nn.Conv2d(4, 3, 1)], ids=["linear", "conv"])
def test_what_linears_read_has_no_zero_point_if_nearly_symmetric(layer, high, signed):
    """8 / (4 + 4) = 1, 9.6 / 8.8 = 1.09 and 10.4 / 9.2 = 1.13 times as wide as it must be."""
    shape = (8, 4) if isinstance(layer, nn.Linear) else (8, 4, 2, 2)
    x = torch.rand(shape)
    x.view(-1)[0], x.view(-1)[1] = -4.0, high
    tensors = dict(quantize(layer, x).graph_module.named_buffers())
    scale, zero_point = (
        next(v for k, v in tensors.items() if k.endswith(end)) for end in (".scale", ".zero_point")
    )
    if signed and isinstance(layer, nn.Linear):
        assert (zero_point, scale) == (0, pytest.approx(high / 127))
    else:
        assert (zero_point, scale) == (round(4 * 255 / (4 + high)), pytest.approx((4 + high) / 255))


def test_a_weight_with_infinity_is_refused():
    layer = nn.Linear(4, 3)
    layer.weight.data[0, 0] = float("inf")
    with pytest.raises(octavo.ConversionError, match="'weight' holds NaN or infinity"):
        octavo.quantize(layer, torch.rand(8, 4))
