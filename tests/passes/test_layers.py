import itertools

import pytest
import torch
from torch import nn

from octavo.capture.export import capture
from octavo.passes import run_passes
from octavo.passes.layers import split_lstm_layers

aten = torch.ops.aten


class Net(nn.Module):
    def __init__(self, starts=False, **settings):
        super().__init__()
        self.layer, self.starts = nn.LSTM(5, 6, **settings), starts

    def forward(self, x, h=None, c=None):
        y, (h, c) = self.layer(x, (h, c) if self.starts else None)
        return y, h, c

    def inputs(self, a, b):
        layer = self.layer
        batch = a if layer.batch_first else b
        shape = (layer.num_layers * (1 + layer.bidirectional), batch, layer.hidden_size)
        return torch.randn(a, b, 5), *((torch.randn(shape), torch.randn(shape)) * self.starts)


def layers(module):
    return len(module.graph.find_nodes(op="call_function", target=aten.lstm.input))


@pytest.mark.parametrize(
    ("count", "bias", "both", "batch_first", "starts"),
    list(itertools.product((2, 3), *[(True, False)] * 4)),
)
def test_each_layer_is_an_operator(count, bias, both, batch_first, starts):
    settings = {"bias": bias, "bidirectional": both, "batch_first": batch_first}
    net = Net(starts, num_layers=count, **settings).eval()
    first, second = net.inputs(3, 4), net.inputs(2, 6)
    graph = run_passes(capture(net, first, {}, [(second, {})]))
    assert layers(graph.module) == count
    for sizes in ((3, 4), (1, 9), (5, 1)):
        inputs = net.inputs(*sizes)
        for a, b in zip(graph.module(*inputs), net(*inputs), strict=True):
            torch.testing.assert_close(a, b)


@pytest.mark.parametrize("settings", [{}, {"num_layers": 2, "proj_size": 3}])
def test_one_layer_and_projected_states_stay_as_they_are(settings):
    net = Net(**settings).eval()
    module = capture(net, net.inputs(3, 4), {}, []).module
    before = str(module.graph)
    split_lstm_layers(module)
    assert str(module.graph) == before


def test_dropout_between_layers_has_no_effect():
    net = Net(num_layers=2, dropout=0.5).eval()
    inputs = net.inputs(3, 4)
    graph = run_passes(capture(net, inputs, {}, []))
    torch.testing.assert_close(graph.module(*inputs)[0], net(*inputs)[0])
