import pytest
import torch
import torch.nn.functional as F
from torch import nn

import octavo
from networks import images
from octavo import EngineError
from octavo.capture.export import capture
from octavo.engines.openvino.build import Builder
from octavo.engines.openvino.convert import build
from octavo.engines.openvino.table import Unsupported


class Frontend(nn.Module):
    """topk is not in the table."""

    def __init__(self):
        super().__init__()
        self.conv, self.depthwise = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 3, groups=8)
        self.fc = nn.Linear(8, 5)

    def forward(self, x):
        y = self.depthwise(F.max_pool2d(F.relu(self.conv(x)), 2)).transpose(2, 3)
        return {"out": self.fc(torch.topk(y.mean((2, 3)), 8)[0])}


def test_a_graph_outside_the_table_goes_through_the_frontend():
    q = octavo.quantize(Frontend(), [images(4) for _ in range(4)])
    with pytest.raises(Unsupported, match="topk"):
        Builder(q.graph_module, q.signature).build()
    fast = q.compile()
    kinds = [n.get_type_name() for n in build(q.graph_module, q.signature).get_ordered_ops()]
    assert kinds.count("FakeQuantize") >= 3
    for batch in (1, 5):
        x = images(batch)
        assert octavo.sqnr(q(x), fast(x)) > 35


class Spectrum(nn.Module):
    def forward(self, x):
        return torch.fft.fft(x).real


def test_a_graph_that_neither_converts():
    with pytest.raises(EngineError, match=r"OpenVINO cannot run node .*fft"):
        build(*capture(Spectrum(), (torch.rand(2, 8),)))
