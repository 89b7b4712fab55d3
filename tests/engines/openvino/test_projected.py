import itertools

import numpy as np
import openvino.opset15 as ov
import pytest
import torch
from torch import nn

from octavo import quantize
from octavo.engines.openvino.projected import projected_layer
from octavo.metrics import sqnr


class Net(nn.Module):
    """An LSTM with projected states, given the first if `starts`."""

    def __init__(self, starts=False, **settings):
        super().__init__()
        self.layer, self.starts = nn.LSTM(7, 12, proj_size=4, **settings), starts

    def forward(self, x, h=None, c=None):
        y, (h, c) = self.layer(x, (h, c) if self.starts else None)
        return y, h, c

    def inputs(self, batch, length):
        layer = self.layer
        sizes = (batch, length) if layer.batch_first else (length, batch)
        lead = layer.num_layers * (1 + layer.bidirectional), batch
        return torch.randn(*sizes, 7), *(
            [torch.randn(*lead, 4), torch.randn(*lead, 12)] * self.starts
        )


FLAGS = list(itertools.product((1, 2), *[(True, False)] * 4))


@pytest.mark.filterwarnings("ignore:LSTM with projections is not supported with oneDNN")
@pytest.mark.parametrize(("count", "bias", "both", "batch_first", "starts"), FLAGS)
@torch.no_grad()
def test_like_pytorch_at_other_batches_and_lengths(count, bias, both, batch_first, starts):
    flags = {"bias": bias, "bidirectional": both, "batch_first": batch_first}
    net = Net(starts, num_layers=count, **flags).eval()
    q = quantize(net, [net.inputs(4, 9), net.inputs(3, 12)])
    fast = q.compile("openvino")
    assert not fast.in_pytorch
    for sizes in ((4, 9), (1, 1), (5, 20), (2, 3)):
        inputs = net.inputs(*sizes)
        for expected, got, original in zip(q(*inputs), fast(*inputs), net(*inputs), strict=True):
            assert sqnr(expected, got) > 110  # the same arithmetic
            assert sqnr(original, got) > 30  # on int8 weights


def test_weights_of_another_width_are_refused():
    x, h, c = (
        ov.parameter(size, np.float32).output(0) for size in ([-1, -1, 7], [1, -1, 4], [1, -1, 5])
    )
    weights = [ov.constant(np.zeros(s, np.float32)).output(0) for s in ([24, 8], [24, 4], [4, 5])]
    with pytest.raises(RuntimeError, match="MatMul"):
        projected_layer(x, [h, c], [weights])
