import pytest
import torch
from torch import nn

import octavo
from octavo import EngineError

OPTIONS = ({}, {"bidirectional": True, "num_layers": 2}, {"bias": False})


@pytest.mark.parametrize("options", OPTIONS, ids=["plain", "deep", "no_bias"])
@pytest.mark.parametrize("batch_first", [True, False])
@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU, nn.RNN])
def test_layers_of_any_length_are_pytorchs(kind, batch_first, options, in_onnx_runtime):
    layer = kind(8, 6, batch_first=batch_first, **options)
    data = torch.randn(4, 8, 8), torch.randn(3, 10, 8)
    net, fast = in_onnx_runtime(lambda layer, x: layer(x), *data, layers=(layer,))
    for shape in ((2, 12, 8), (5, 3, 8)):
        x = torch.randn(shape)
        with torch.no_grad():
            torch.testing.assert_close(fast(x), net(x), rtol=1e-5, atol=1e-5)


def test_other_activations_and_initial_states(in_onnx_runtime):
    layer, x = nn.RNN(8, 6, nonlinearity="relu", batch_first=True), torch.randn(4, 8, 8)
    state = torch.randn(1, 4, 6)
    net, fast = in_onnx_runtime(lambda layer, x, h: layer(x, h), (x, state), layers=(layer,))
    with torch.no_grad():
        torch.testing.assert_close(fast(x, state), net(x, state), rtol=1e-5, atol=1e-5)


def test_a_projection_is_refused():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.memory, self.head = nn.LSTM(8, 6, proj_size=4, batch_first=True), nn.Linear(4, 2)

        def forward(self, x):
            return self.head(self.memory(x)[0])

    q = octavo.quantize(Net(), torch.randn(4, 7, 8), config="fast")
    message = r"node 'lstm' \(lstm\) in module 'memory': ONNX has no LSTM with proj_size; use "
    with pytest.raises(EngineError, match=message):
        q.compile("onnxruntime")
