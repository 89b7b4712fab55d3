import pytest
import torch
import torch.nn.functional as F
from torch import fx, nn

import octavo
from networks import images
from octavo.engines.qdq import Dequantize, Quantize
from octavo.graph import ops
from octavo.graph.tensors import new_attribute

aten = torch.ops.aten


def graph_of(*qparams):
    """An empty graph with an input, and nodes for pairs of scale and zero_point."""
    module = fx.GraphModule(nn.Module(), fx.Graph())
    x, nodes = module.graph.placeholder("x"), []
    for i, (scale, zero_point) in enumerate(qparams):
        tensors = {"scale": torch.tensor(scale), "zero_point": torch.tensor(zero_point)}
        nodes.append([new_attribute(module, f"{name}{i}", t) for name, t in tensors.items()])
    return module, module.graph.call_function, x, *nodes


def test_a_quantize_by_name():
    module, call, x, qparams = graph_of((0.5, 10))
    q = Quantize.of(module, call(ops.quantize, (x, *qparams, 0, 255, torch.uint8)))
    assert (q.x, q.qparams) == (x, tuple(qparams))
    assert (q.scale.item(), q.zero_point.item()) == (0.5, 10)
    assert (q.qmin, q.qmax, q.dtype, q.axis, q.levels) == (0, 255, torch.uint8, None, 256)
    assert [b.item() for b in q.bounds] == [-5.0, 122.5]
    assert not q.is_hint


def test_a_quantize_with_a_scale_for_each_channel():
    module, call, x, qparams = graph_of(([0.5, 2.0], [0, 0]))
    q = Quantize.of(module, call(ops.quantize, (x, *qparams, -127, 127, torch.int8, 1)))
    assert (q.dtype, q.axis, q.levels) == (torch.int8, 1, 255)
    assert [b.tolist() for b in q.bounds] == [[-63.5, -254.0], [63.5, 254.0]]
    assert {b.dtype for b in q.bounds} == {torch.float64}


@pytest.mark.parametrize("hint", ops.HINTS)
@pytest.mark.parametrize(("qmin", "dtype"), [(0, torch.uint8), (-127, torch.int8)])
def test_a_hint_has_the_type_of_its_bounds(hint, qmin, dtype):
    module, call, x, qparams = graph_of((0.5, 0))
    q = Quantize.of(module, call(hint, (x, *qparams, qmin, 127)))
    assert q.is_hint
    assert (q.qmin, q.qmax, q.dtype, q.axis) == (qmin, 127, dtype, None)


def test_a_dequantize_by_name():
    module, call, x, qparams = graph_of((0.5, 10))
    d = Dequantize.of(module, call(ops.dequantize, (x, *qparams)))
    assert (d.q, d.qparams, d.axis, d.is_weight) == (x, tuple(qparams), None, False)
    assert (d.scale.item(), d.zero_point.item()) == (0.5, 10)


def test_a_weight():
    q = octavo.quantize(nn.Conv2d(3, 4, 3), images(4))
    (conv,) = q.graph.find_nodes(op="call_function", target=aten.conv2d.default)
    d = Dequantize.of(q.graph_module, conv.args[1])
    assert d.is_weight
    assert (d.zero_point, d.qparams[1], d.axis) == (None, None, 0)
    assert d.scale.shape == (4,)


def test_other_nodes_and_values_are_none():
    module, call, x, qparams = graph_of((0.5, 10))
    quantize = call(ops.quantize, (x, *qparams, 0, 255, torch.uint8))
    dequantize = call(ops.dequantize, (quantize, *qparams))
    for value in (x, call(aten.relu.default, (x,)), dequantize, None, 3, [quantize]):
        assert Quantize.of(module, value) is None
    for value in (x, call(aten.relu.default, (x,)), quantize, None, 3, [dequantize]):
        assert Dequantize.of(module, value) is None


def test_a_scale_that_the_model_does_not_have():
    module, call, x, qparams = graph_of((0.5, 10))
    node = call(ops.dequantize, (x, *qparams))
    del module.scale0
    with pytest.raises(AttributeError, match="scale0"):
        Dequantize.of(module, node)


@pytest.mark.parametrize(
    ("between", "same", "redundant"),
    [
        (aten.max_pool2d.default, True, True),
        (aten.max_pool2d.default, False, False),  # other integers
        (aten.avg_pool2d.default, True, False),  # other values
    ],
)
def test_only_what_moves_values_keeps_their_integers(between, same, redundant):
    module, call, x, first, second = graph_of((0.5, 10), (0.25, 10))
    moved = call(between, (call(ops.dequantize, (x, *first)), [2, 2]))
    q = call(ops.quantize, (moved, *(first if same else second), 0, 255, torch.uint8))
    assert Quantize.of(module, q).is_redundant_requantize is redundant


def test_a_quantize_of_an_input_is_not_redundant():
    module, call, x, qparams = graph_of((0.5, 10))
    for source in (x, call(aten.max_pool2d.default, (x, [2, 2]))):
        q = Quantize.of(module, call(ops.quantize, (source, *qparams, 0, 255, torch.uint8)))
        assert not q.is_redundant_requantize


class Pooled(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3)

    def forward(self, x):
        return self.b(F.max_pool2d(F.relu(self.a(x)), 2))


def test_in_a_model_the_one_after_a_max_pool_is_redundant():
    q = octavo.quantize(Pooled(), images(4))
    parsed = (Quantize.of(q.graph_module, n) for n in q.graph.nodes)
    assert [p.is_redundant_requantize for p in parsed if p is not None] == [False, False, True]
