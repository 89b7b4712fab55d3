import itertools

import pytest
import torch
from torch import nn

from engines.openvino.operator_cases import assert_like_pytorch
from octavo import CaptureError, DataError, quantize
from octavo.capture.export import capture
from octavo.engines.base import compile_graph
from octavo.engines.openvino.build import Builder
from octavo.engines.openvino.recurrent import KINDS
from octavo.passes import run_passes

LAYERS = {
    "lstm": nn.LSTM,
    "gru": nn.GRU,
    "rnn_tanh": nn.RNN,
    "rnn_relu": lambda *a, **kw: nn.RNN(*a, nonlinearity="relu", **kw),
}
CELLS = {
    "lstm": nn.LSTMCell,
    "gru": nn.GRUCell,
    "rnn_tanh": nn.RNNCell,
    "rnn_relu": lambda *a, **kw: nn.RNNCell(*a, nonlinearity="relu", **kw),
}
FLAGS = list(itertools.product((1, 2), (False, True), (False, True), (False, True)))


class Recurrent(nn.Module):
    """A layer that returns its states, and is given the first if `starts`."""

    def __init__(self, kind, layers, both, bias, starts, batch_first):
        super().__init__()
        settings = {"num_layers": layers, "bidirectional": both, "bias": bias}
        self.layer = LAYERS[kind](7, 5, batch_first=batch_first, **settings)
        self.starts, self.pair, self.batch_first = starts, kind == "lstm", batch_first
        self.states = layers * (2 if both else 1)

    def forward(self, x, h=None):
        y, end = self.layer(x, h) if self.starts else self.layer(x)
        return (y, *end) if self.pair else (y, end)

    def inputs(self, batch, length):
        x = torch.randn(batch, length, 7)
        x = x if self.batch_first else x.transpose(0, 1).contiguous()
        h = torch.randn(self.states, batch, 5)
        return (x, (h, torch.randn_like(h)) if self.pair else h) if self.starts else (x,)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("batch_first", [True, False])
@pytest.mark.parametrize(("layers", "both", "bias", "starts"), FLAGS)
def test_layers_at_other_batches_and_lengths(kind, batch_first, layers, both, bias, starts):
    net = Recurrent(kind, layers, both, bias, starts, batch_first).eval()
    first, second = net.inputs(3, 6), net.inputs(2, 4)
    graph, signature = run_passes(capture(net, first, {}, [(second, {})]))
    Builder(graph, signature).build()  # raises Unsupported where the frontend would be needed
    fast = compile_graph(graph, signature)
    for batch, length in ((3, 6), (1, 1), (5, 9), (1, 7)):
        inputs = net.inputs(batch, length)
        for got, expected in zip(fast(*inputs), net(*inputs), strict=True):
            torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("bias", [True, False])
def test_cells(monkeypatch, kind, bias):
    cell = CELLS[kind](7, 5, bias=bias)

    def step(x, h, c):
        return cell(x, (h, c)) if kind == "lstm" else (cell(x, h), c)

    def states(n):
        return torch.randn(n, 5)

    assert_like_pytorch(monkeypatch, step, lambda n: torch.randn(n, 7), states, states)


def test_a_layer_is_one_operator_not_one_for_each_step():
    net = Recurrent("lstm", 1, True, True, False, True).eval()
    graph, signature = run_passes(capture(net, net.inputs(3, 50)))
    kinds = [op.get_type_name() for op in Builder(graph, signature).build().get_ops()]
    assert kinds.count("LSTMSequence") == 1
    assert not {"TensorIterator", "Loop", "MatMul"} & set(kinds)


class Packing(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.LSTM(7, 5)

    def forward(self, x, lengths):
        packed = nn.utils.rnn.pack_padded_sequence(x, lengths, enforce_sorted=False)
        return nn.utils.rnn.pad_packed_sequence(self.layer(packed)[0])[0]


def test_packed_sequences_are_refused():
    x, lengths = torch.randn(6, 2, 7), torch.tensor([6, 4])
    packed = nn.utils.rnn.pack_padded_sequence(x, lengths)
    for data in ([(packed,)], [packed]):
        with pytest.raises(DataError, match="holds a packed sequence"):
            quantize(nn.LSTM(7, 5), data)
    with pytest.raises(CaptureError, match="call the recurrent layer on the padded tensor"):
        quantize(Packing(), [(x, lengths)])
