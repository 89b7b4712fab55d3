import openvino
import pytest
import torch
from torch import nn

import octavo
from networks import images
from octavo import EngineError
from octavo.capture.export import capture
from octavo.engines.openvino.compiled import CompiledModel
from octavo.engines.openvino.frontend import convert_by_frontend, fake_quantized
from octavo.graph import ops


class Sorted(nn.Module):
    """Sorting is not in the table."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.fc = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 3), nn.Linear(8, 5)

    def forward(self, x):
        x = self.b(nn.functional.max_pool2d(self.a(x).relu(), 2))
        return self.fc(x.mean((2, 3)).sort(-1)[0])


def test_fake_quantized_floats_take_the_place_of_integers():
    q, x = octavo.quantize(Sorted(), [images(4) for _ in range(4)]), images(3)
    module = fake_quantized(q.graph_module)
    targets = [n.target for n in module.graph.nodes]
    assert not set(targets) & set(ops.ALL)
    quantizes = len(q.graph.find_nodes(op="call_function", target=ops.quantize))
    # the one after the max pool restores the integers before it
    assert targets.count(torch.ops.octavo.fake_quantize.default) == quantizes - 1
    assert q.graph.find_nodes(op="call_function", target=ops.quantize)  # the model is left alone
    built = convert_by_frontend(q.graph_module, q.signature)
    fast = CompiledModel(openvino.Core(), built, q.signature, {"INFERENCE_PRECISION_HINT": "f32"})
    assert octavo.sqnr(q(x), fast(x)) > 35


class Long(nn.Module):
    """Takes no fewer than 40 values."""

    def forward(self, x):
        torch._check(x.shape[1] >= 40)
        return x[:, 20:].sort(-1)[0]


def test_a_length_that_the_model_takes_is_found():
    net, x = Long(), torch.rand(3, 50)
    graph, signature = capture(net, (x,), others=[((torch.rand(3, 60),), {})])
    assert signature.inputs[0][1] == (None, None)
    assert convert_by_frontend(graph, signature).get_parameters()


class Spectrum(nn.Module):
    def forward(self, x):
        return torch.fft.fft(x).real


def test_what_the_frontend_does_not_convert_is_in_the_message():
    with pytest.raises(EngineError, match=r"(?s)cannot convert this model: .*fft"):
        convert_by_frontend(*capture(Spectrum(), (torch.rand(2, 8),)))
