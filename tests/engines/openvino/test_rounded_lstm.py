import itertools

import openvino
import pytest
import torch
from torch import nn

import octavo
from octavo import Config, PartitionWarning, SiteConfig
from octavo.engines.base import compile_graph
from octavo.engines.openvino.build import Builder
from octavo.engines.openvino.table import Unsupported
from octavo.metrics import sqnr

INTEGERS = Config(activations="static", sites={"lstm": SiteConfig(activations="static")})
SAME = 45  # dB: some numbers halfway between two integers are rounded to the other


class Net(nn.Module):
    """LSTMs, given their first states if `starts`, after a clip if `positive`."""

    def __init__(self, starts=False, positive=False, **settings):
        super().__init__()
        self.layer, self.starts, self.positive = nn.LSTM(20, 20, **settings), starts, positive

    def forward(self, x, h=None, c=None):
        x = x.relu() if self.positive else x
        y, (h, c) = self.layer(x, (h, c) if self.starts else None)
        return y, h, c

    def inputs(self, batch, length):
        layer = self.layer
        sizes = (batch, length) if layer.batch_first else (length, batch)
        shape = (layer.num_layers * (1 + layer.bidirectional), batch, layer.hidden_size)
        return torch.randn(*sizes, 20), *(
            (torch.randn(shape) / 9, torch.randn(shape)) * self.starts
        )


def quantized(net):
    data = [net.inputs(*sizes) for sizes in ((8, 12), (6, 15), (8, 9), (8, 14))]
    return octavo.quantize(net.eval(), data, config=INTEGERS)


FLAGS = list(itertools.product((1, 2), (True, False), (True, False), (True, False)))


@pytest.mark.parametrize("starts", [False, True])
@pytest.mark.parametrize(("count", "bias", "both", "batch_first"), FLAGS)
@torch.no_grad()
def test_like_the_reference_at_other_batches_and_lengths(count, bias, both, batch_first, starts):
    flags = {"bias": bias, "bidirectional": both, "batch_first": batch_first}
    net = Net(starts, positive=bias, num_layers=count, **flags)
    q = quantized(net)
    fast = q.compile("openvino")
    assert not fast.in_pytorch
    for sizes in ((8, 12), (1, 1), (5, 30), (1, 17)):
        inputs = net.inputs(*sizes)
        for expected, got in zip(q(*inputs), fast(*inputs), strict=True):
            assert sqnr(expected, got) > SAME


def test_it_runs_in_integers():
    net = Net(num_layers=2, batch_first=True)
    q = quantized(net)
    model = Builder(q.graph_module, q.signature).build()
    runtime = openvino.compile_model(model, "CPU").get_runtime_model()
    layers = [op for op in runtime.get_ops() if "LSTMSequence" in op.get_friendly_name()]
    layers = [op for op in layers if len(op.inputs()) == 7]
    assert len(layers) == 2
    for layer in layers:
        kinds = [str(i.get_element_type()) for i in layer.inputs()]
        assert "uint8" in kinds[0] and "uint8" in kinds[1] and "int8" in kinds[4]


@torch.no_grad()
def test_layers_of_one_shape_keep_their_own_scales():
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b, self.c = (nn.LSTM(n, 8, batch_first=True) for n in (8, 12, 8))

        def forward(self, x):
            y = self.a(x)[0]
            z = self.b(torch.cat([3 * y, y[..., :4]], -1))[0]
            return y, z, self.c(20 * z)[0]

    net = Two().eval()
    data = [torch.randn(8, length, 8) for length in (9, 12, 7, 9)]
    q = octavo.quantize(net, data, config=INTEGERS)
    x = torch.randn(2, 30, 8)
    for expected, got in zip(q(x), q.compile("openvino")(x), strict=True):
        assert sqnr(expected, got) > SAME


@pytest.mark.parametrize("fault", ["ratio", "gates"])
@torch.no_grad()
def test_scales_that_openvino_would_mistake_run_in_pytorch(fault):
    net = Net(batch_first=True)
    q = quantized(net)
    module = q.graph_module
    scale = next(b for n, b in module.named_buffers() if "weight_hh" in n and n.endswith("scale"))
    if fault == "ratio":
        scale *= 1.1
    else:
        scale[0] *= 1.1
    x = net.inputs(2, 7)
    with pytest.warns(PartitionWarning, match="lstm"):
        fast = compile_graph(module, q.signature)
    for expected, got in zip(module(*x), fast.run(x), strict=True):
        assert sqnr(expected, got) > SAME


@torch.no_grad()
def test_a_graph_with_other_weights_is_refused_not_crashed():
    q = quantized(Net(batch_first=True))
    node = next(n for n in q.graph.nodes if "rounded_lstm" in str(n.target))
    node.update_arg(2, list(node.args[2])[:3])  # as a file may have it
    q.graph_module.recompile()
    with pytest.raises(Unsupported, match="other weights than an LSTM"):
        Builder(q.graph_module, q.signature).build()
