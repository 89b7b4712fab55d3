import pytest
import torch
from torch import nn

import octavo
from octavo import Config, SiteConfig
from octavo.engines.recurrent import Layers
from octavo.metrics import sqnr

ARGUMENTS = ("x", "h", list("abcdefgh"), False, 2, 0.0, False, True, True)


def test_weights_of_a_layer_for_each_direction():
    call = Layers(*ARGUMENTS)  # two layers in two directions, two weights each
    assert (call.directions, call.each) == (2, 2)
    assert call.of(0) == (slice(0, 2), [["a", "b"], ["c", "d"]])
    assert call.of(1) == (slice(2, 4), [["e", "f"], ["g", "h"]])


def test_other_arguments_are_refused():
    with pytest.raises(TypeError):
        Layers(*ARGUMENTS[:-1])


@pytest.mark.parametrize("engine", ["onnxruntime", "torch_int8"])
@torch.no_grad()
def test_engines_without_integer_kernels_compute_in_float(engine):
    net = nn.LSTM(12, 16, 2, batch_first=True, bidirectional=True).eval()
    data = [torch.randn(8, length, 12) for length in (10, 15, 12, 9)]
    config = Config(activations="static", sites={"lstm": SiteConfig(activations="static")})
    q = octavo.quantize(net, data, config=config)
    assert [r.precision for r in q.report().rows if r.operator == "lstm"] == ["int8", "int8"]
    fast = q.compile(engine)
    for batch, length in ((1, 1), (5, 30), (2, 7)):
        x = torch.randn(batch, length, 12)
        (y, states), (got, got_states) = net(x), fast(x)
        for a, b in zip((y, *states), (got, *got_states), strict=True):
            assert sqnr(a, b) > 25
