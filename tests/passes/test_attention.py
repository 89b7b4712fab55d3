"""Attention becomes matrix products and packed projections come apart, with the same numbers."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import octavo
from octavo.capture.export import capture
from octavo.passes import run_passes
from stages import rewritten

aten = torch.ops.aten


class Attend(nn.Module):
    def __init__(self, **options):
        super().__init__()
        self.options = options

    def forward(self, q, k, v, mask=None):
        return F.scaled_dot_product_attention(q, k, v, mask, **self.options)


def tidied(net, *args):
    return rewritten(capture(net, args)[0])


def targets(graph):
    return [n.target for n in graph.graph.nodes if n.op == "call_function"]


q, k, v = torch.randn(2, 4, 5, 8), torch.randn(2, 4, 7, 8), torch.randn(2, 4, 7, 8)
keep = torch.rand(2, 1, 5, 7) > 0.4
keep[0, 0, 0] = False  # a query that sees no key
INFINITE = torch.zeros(2, 1, 5, 7).masked_fill(~keep, -torch.inf)
CASES = {
    "plain": (Attend(), (q, k, v)),
    "scale": (Attend(scale=0.3), (q, k, v)),
    "three dimensions": (Attend(), (q[:, 0], k[:, 0], v[:, 0])),
    "causal": (Attend(is_causal=True), (q, k, v)),
    "mask of booleans": (Attend(), (q, k, v, keep)),
    "mask of infinities": (Attend(), (q, k, v, INFINITE)),
    "mask of numbers": (Attend(), (q, k, v, torch.randn(2, 1, 5, 7))),
    "groups of heads": (Attend(enable_gqa=True), (q, k[:, :2], v[:, :2])),
}


@pytest.mark.parametrize("case", CASES)
def test_expanded_attention_is_pytorchs(case):
    net, args = CASES[case]
    graph = tidied(net, *args)
    assert targets(graph).count(aten.matmul.default) == 2
    assert aten.scaled_dot_product_attention.default not in targets(graph)
    torch.testing.assert_close(graph(*args)[0], net(*args))


@pytest.mark.parametrize("case", CASES)
def test_int8_attention_on_both_engines(case):
    net, args = CASES[case]
    quantized = octavo.quantize(net, args)
    assert quantized.report().int8_share == 1
    expected, got, fast = net(*args), quantized(*args), quantized.compile()(*args)
    assert octavo.sqnr(expected, got) > 30
    assert octavo.sqnr(got, fast) > 35
    if case.startswith("mask of") and case != "mask of numbers":
        assert torch.equal(fast[0, :, 0], torch.zeros(4, 8))


class Packed(nn.Module):
    """q, k and v from one linear layer, taken apart in one of the ways that models use."""

    def __init__(self, way, bias=True):
        super().__init__()
        self.way, self.qkv, self.out = way, nn.Linear(16, 48, bias=bias), nn.Linear(16, 16)

    def forward(self, x):
        q, k, v = self.way(self.qkv(x))
        y = (q @ k.transpose(-2, -1)).softmax(-1) @ v
        return self.out(y.transpose(1, 2).flatten(2))


def heads(y):
    return y.reshape(*y.shape[:2], 2, 8).transpose(1, 2)


WAYS = {
    "chunk": lambda y: map(heads, y.chunk(3, -1)),
    "split": lambda y: map(heads, y.split(16, 2)),
    "slices": lambda y: map(heads, (y[..., :16], y[..., 16:32], y[..., 32:])),
    "unbind": lambda y: y.reshape(*y.shape[:2], 3, 2, 8).permute(2, 0, 3, 1, 4).unbind(0),
    "heads first": lambda y: y.unflatten(-1, (2, 3, 8)).permute(3, 0, 2, 1, 4).unbind(0),
    "select": lambda y: [
        heads(y.unflatten(-1, (3, 16)).unsqueeze(0).transpose(0, -2).squeeze(-2)[i])
        for i in range(3)
    ],
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("bias", [True, False])
def test_packed_projections_come_apart(way, bias):
    net, x = Packed(WAYS[way], bias).eval(), torch.randn(3, 5, 16)
    graph = tidied(net, x)
    weights = [
        n.args[1] for n in graph.graph.find_nodes(op="call_function", target=aten.linear.default)
    ]
    assert [tuple(w.meta["val"].shape) for w in weights] == [(16, 16)] * 4
    other = torch.randn(2, 9, 16)
    torch.testing.assert_close(graph(x)[0], net(x))
    assert net(other).shape == (2, 9, 16)


def test_parts_that_are_no_attention_stay_together():
    class Gated(nn.Module):
        def __init__(self):
            super().__init__()
            self.both = nn.Linear(8, 16)

        def forward(self, x):
            a, b = self.both(x).chunk(2, -1)
            return a * b.sigmoid()

    graph = tidied(Gated(), torch.randn(3, 8))
    assert targets(graph).count(aten.linear.default) == 1


def test_multihead_attention_in_int8():
    layer = nn.TransformerEncoderLayer(32, 4, 64, batch_first=True).eval()
    x, padding = torch.randn(4, 9, 32), torch.zeros(4, 9, dtype=torch.bool)
    padding[0, -3:] = True
    data = [{"src": x, "src_key_padding_mask": padding}]
    quantized = octavo.quantize(layer, data)
    expected = layer(x, src_key_padding_mask=padding)
    assert quantized.report().int8_share == 1
    for run in (quantized, quantized.compile()):
        assert octavo.sqnr(expected, run(x, src_key_padding_mask=padding)) > 30


def test_a_call_of_another_kind_is_refused():
    quantized = octavo.quantize(Attend(), (q, k, v))
    with pytest.raises(octavo.CaptureError, match="structure"):
        quantized(q, k, v, keep)


def test_a_causal_mask_leaves_the_length_dynamic():
    """Also where q, k and v come from one layer, which is taken apart by known sizes."""

    class Causal(nn.Module):
        def __init__(self):
            super().__init__()
            self.embed, self.qkv = nn.Embedding(50, 16), nn.Linear(16, 48)

        def forward(self, ids):
            x = self.embed(ids)
            parts = self.qkv(x).reshape(*x.shape[:2], 3, 2, 8).permute(2, 0, 3, 1, 4)
            y = F.scaled_dot_product_attention(*parts, is_causal=True)
            return y.transpose(1, 2).flatten(2)

    net = Causal().eval()
    q = octavo.quantize(net, [torch.randint(50, (4, 13)) for _ in range(4)])
    fast = q.compile()
    for length in (13, 9, 21):
        ids = torch.randint(50, (3, length))
        assert octavo.sqnr(net(ids), q(ids)) > 25
        assert octavo.sqnr(q(ids), fast(ids)) > 35


def test_a_width_that_is_dynamic_keeps_its_scale():
    class Own(nn.Module):
        def forward(self, x):
            return F.scaled_dot_product_attention(x, x, x)

    net, data = Own(), [torch.randn(2, 5, 8), torch.randn(2, 5, 12)]
    graph = run_passes(capture(net, (data[0],), others=[((data[1],), {})]))
    for width in (8, 12, 20):
        x = torch.randn(3, 5, width)
        torch.testing.assert_close(graph.module(x)[0], net(x))
