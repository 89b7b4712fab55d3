"""Operators that torch.onnx translates less well than Octavo does."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import octavo


class Cropped(nn.Module):
    """What a U-Net does with images of odd sizes: a negative padding, halved."""

    def __init__(self):
        super().__init__()
        self.down, self.up = nn.Conv2d(4, 4, 3, 2, 1), nn.ConvTranspose2d(4, 4, 2, 2)

    def forward(self, x):
        up = self.up(self.down(x))
        high, wide = (a - b for a, b in zip(x.shape[2:], up.shape[2:], strict=True))
        pads = (wide // 2, wide - wide // 2, high // 2, high - high // 2)
        return x + F.pad(up, pads)


class Quotients(nn.Module):
    def forward(self, x):
        n = x.shape[1]
        return x * ((5 - n) // 2) + (-n) // 3 + 100 // n + (5 - n) % 4


@pytest.mark.parametrize(
    ("net", "shapes"),
    [
        (Cropped(), [(2, 4, 17, 18), (2, 4, 15, 21), (1, 4, 14, 13)]),
        (Quotients(), [(2, 4), (2, 9), (3, 1), (1, 6), (1, 7), (2, 20)]),
    ],
    ids=["cropped", "quotients"],
)
def test_quotients_of_negative_sizes(net, shapes):
    """-1 // 2 was 0, so that images were cropped at the other side."""
    data = [torch.randn(s) for s in shapes]
    q = octavo.quantize(net.eval(), data[:2], config="fast")
    fast = q.compile("onnxruntime", check=False)
    for x in data:
        torch.testing.assert_close(fast(x), q(x), rtol=0.02, atol=0.1)


def test_what_has_no_translation_is_named():
    class Kth(nn.Module):
        def forward(self, x):
            return x.kthvalue(2).values

    q = octavo.quantize(Kth(), [torch.randn(2, 4)], config="fast")
    with pytest.raises(octavo.EngineError, match="no translation for node 'kthvalue'"):
        q.compile("onnxruntime")
