import pytest
import torch
from torch import nn

import octavo
from networks import calls, make
from octavo.graph import ops
from octavo.graph.names import operator_name
from octavo.graph.tensors import attribute


def test_float_tensors_that_nobody_reads_are_left_behind():
    net, inputs = make("residual")
    q = octavo.quantize(net, calls(inputs))
    names = set(dict(q.graph_module.named_buffers()))
    assert not {"bn.weight", "bn.running_mean", "stem.weight"} & names
    floats = [t for t in q.graph_module.buffers() if t.dtype == torch.float32 and t.dim() > 1]
    assert floats == []


def test_a_residual_add_reads_and_gives_integers():
    net, inputs = make("residual")
    q = octavo.quantize(net, calls(inputs))
    add = next(n for n in q.graph.nodes if operator_name(n) == "add")
    kinds = [operator_name(a) for a in add.args[:2]]
    assert sorted(kinds) == [
        "dequantize",
        "fuse_in_accumulator",
    ]  # a convolution's sums are not rounded
    relu = next(iter(add.users))
    assert next(iter(relu.users)).target is ops.dequantize or any(
        u.target is ops.quantize for u in relu.users
    )


def test_weights_shared_by_two_sites_are_stored_once():
    layer = nn.Linear(8, 8)
    q = octavo.quantize(nn.Sequential(layer, nn.ReLU(), layer), torch.randn(16, 8))
    int8 = [n for n, t in q.graph_module.named_buffers() if t.dtype == torch.int8]
    assert len(int8) == 1
    assert len([r for r in q.report().rows if r.operator.startswith("linear")]) == 2


def test_one_weight_read_along_two_axes_has_two_scales():
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.w = nn.Parameter(torch.randn(6, 8))

        def forward(self, x):
            return torch.nn.functional.linear(x, self.w) @ self.w

    net, x = Tied(), torch.randn(16, 8)
    q = octavo.quantize(net, x)
    shapes = {n: tuple(t.shape) for n, t in q.graph_module.named_buffers() if "scale" in n}
    assert shapes["w_scale"] == (6,)
    assert shapes["w_axis1_scale"] == (8,)
    assert octavo.sqnr(net(x), q(x)) > 28


def test_a_weight_with_infinity_is_refused():
    net = nn.Linear(3, 3)
    net.weight[0, 0] = float("-inf")
    with pytest.raises(octavo.ConversionError, match="'weight'"):
        octavo.quantize(net, torch.rand(2, 3))


def test_a_weight_shared_with_an_embedding_is_float_there_and_int8_here():
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.embed, self.head = nn.Embedding(20, 8), nn.Linear(8, 20, bias=False)
            self.head.weight = self.embed.weight

        def forward(self, ids):
            return self.head(self.embed(ids))

    net, ids = Tied(), torch.randint(20, (4, 6))
    q = octavo.quantize(net, ids)
    assert q.report().int8_share == 1
    assert octavo.sqnr(net(ids), q(ids)) > 30
    assert octavo.sqnr(q(ids), q.compile()(ids)) > 35


def test_the_range_before_an_activation_is_kept_as_a_hint():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 4, 1), nn.SiLU(), nn.Conv2d(4, 2, 1))
    x = torch.randn(4, 3, 6, 6)
    config = octavo.Config(observer="minmax", equalize=False)
    q = octavo.quantize(net.eval(), x, config=config)
    (hint,) = q.graph.find_nodes(op="call_function", target=ops.requantize_hint)
    before, (after,) = hint.args[0], hint.users
    assert (operator_name(before), operator_name(after)) == ("conv2d", "silu")
    with torch.no_grad():
        seen = net[0](x)
    width = attribute(q.graph_module, hint.args[1].target) * 255
    torch.testing.assert_close(width, seen.max() - seen.min(), rtol=0.01, atol=0)
