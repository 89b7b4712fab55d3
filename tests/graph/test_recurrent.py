import itertools

import pytest
import torch
from torch import fx, nn

from octavo.graph.recurrent import as_float_layer, is_made, rounded_lstm

SCALE, ZERO = torch.tensor(0.01), torch.tensor(120, dtype=torch.int32)


def by_cells(layer, x, h, c):
    """The same by nn.LSTMCell and PyTorch's own rounding, one sample's step at a time."""

    def rounded(t):
        return torch.fake_quantize_per_tensor_affine(t, SCALE, ZERO, 0, 255)

    x, outputs, ends = x.transpose(0, 1) if layer.batch_first else x, [], []
    for d, suffix in enumerate(("", "_reverse")[: 1 + layer.bidirectional]):
        cell = nn.LSTMCell(layer.input_size, layer.hidden_size, bias=layer.bias)
        for name, own in cell.named_parameters():
            own.data = getattr(layer, f"{name}_l0{suffix}").data
        state, steps = (rounded(h[d]), c[d]), []
        for t in reversed(range(len(x))) if d else range(len(x)):
            new_h, new_c = cell(x[t], state)
            state = rounded(new_h), new_c
            steps.append(state[0])
        outputs.append(torch.stack(steps[::-1] if d else steps))
        ends.append(state)
    y = torch.cat(outputs, 2)
    hs, cs = zip(*ends, strict=True)
    return (y.transpose(0, 1) if layer.batch_first else y), torch.stack(hs), torch.stack(cs)


@pytest.mark.parametrize(
    ("bias", "both", "batch_first"), list(itertools.product((True, False), repeat=3))
)
@torch.no_grad()
def test_a_layer_by_hand(bias, both, batch_first):
    layer = nn.LSTM(5, 6, bias=bias, bidirectional=both, batch_first=batch_first)
    x, h, c = torch.randn(3, 4, 5), *torch.randn(2, 1 + both, 3 if batch_first else 4, 6) / 2
    flags = (bias, both, batch_first)
    found = rounded_lstm(x, [h, c], layer._flat_weights, *flags, SCALE, ZERO, 0, 255)
    for a, b in zip(found, by_cells(layer, x, h, c), strict=True):
        torch.testing.assert_close(a, b)


def test_shapes_of_tensors_without_data():
    layer = nn.LSTM(5, 6, bidirectional=True)
    weights = [w.detach() for w in layer._flat_weights]
    x, states = torch.randn(7, 2, 5), [torch.zeros(2, 2, 6), torch.zeros(2, 2, 6)]
    args = (x, states, weights, True, True, False, SCALE, ZERO, 0, 255)
    checks = ("test_schema", "test_faketensor")
    found = torch.library.opcheck(rounded_lstm, args, test_utils=checks)
    assert found == dict.fromkeys(checks, "SUCCESS")


@torch.no_grad()
def test_the_same_layer_without_rounding():
    layer = nn.LSTM(5, 6, batch_first=True)
    x, states = torch.randn(2, 7, 5), (torch.randn(1, 2, 6), torch.randn(1, 2, 6))
    args = (x, states, layer._flat_weights, True, False, True, SCALE, ZERO, 0, 255)
    y, _, _ = torch.ops.aten.lstm.input(*as_float_layer(args))
    torch.testing.assert_close(y, layer(x, states)[0])


def test_weights_of_another_layer_are_refused():
    layer = nn.LSTM(5, 6)
    states = [torch.zeros(1, 2, 6)] * 2
    with pytest.raises(RuntimeError, match="shape"):
        rounded_lstm(
            torch.randn(7, 2, 4), states, layer._flat_weights, True, False, False, SCALE, ZERO, 0, 9
        )


def test_states_made_of_sizes_alone():
    graph = fx.Graph()
    x = graph.placeholder("x")
    size = graph.call_function(torch.ops.aten.sym_size.int, (x, 0))
    zeros = graph.call_function(torch.ops.aten.zeros.default, ([1, size, 4],))
    assert is_made(graph.call_function(torch.ops.aten.slice.Tensor, (zeros, 0, 0, 1)))
    assert not is_made(graph.call_function(torch.ops.aten.neg.default, (x,)))
