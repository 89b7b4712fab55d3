import pytest
import torch
from torch import nn

import octavo
from octavo.capture.export import capture
from octavo.passes.inline import inline_regions
from stages import rewritten


@pytest.mark.parametrize("enabled", [False, True])
def test_a_region_without_autocast_is_part_of_the_whole(enabled):
    class Region(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(4, 4), nn.Linear(4, 2)

        def forward(self, x):
            with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
                y = self.a(x).relu()
            return self.b(y.float())

    net, x = Region(), torch.randn(5, 4)
    graph = rewritten(capture(net, (x,))[0])
    linears = graph.graph.find_nodes(op="call_function", target=torch.ops.aten.linear.default)
    assert len(linears) == 2
    # autocast computes in bfloat16, the graph in float32
    torch.testing.assert_close(graph(x)[0], net(x), atol=2e-2 if enabled else 1e-6, rtol=1e-5)
    quantized = octavo.quantize(net, x)
    for run in (quantized, quantized.compile()):
        assert octavo.sqnr(net(x), run(x)) > 25


def test_only_graphs_have_nodes():
    with pytest.raises(AttributeError):
        inline_regions(nn.ReLU())
