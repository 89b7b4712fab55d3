import copy

import pytest
import torch
import torch.nn.functional as F
from torch import fx, nn

import octavo
from octavo.graph import ops
from octavo.graph.operators import OPERATORS, Kind
from octavo.sites.rules.kinds import RULES
from stages import quantize, rows


def lam(fn):
    class Lambda(nn.Module):
        def forward(self, x):
            return fn(x)

    return Lambda()


FLOATS = {
    "softmax": nn.Softmax(dim=1),
    "layer_norm": nn.LayerNorm(8),
    "group_norm": nn.GroupNorm(2, 8),
    "gelu": nn.GELU(),
    "elu": nn.ELU(),
    "softplus": nn.Softplus(),
}


@pytest.mark.parametrize("kind", FLOATS)
def test_float_operators_between_int8_ones(kind):
    net = nn.Sequential(lam(lambda x: x * 2), FLOATS[kind], nn.Conv2d(8, 4, 1))
    x = torch.randn(4, 8, 8, 8)
    q = quantize(net, x)
    assert rows(q)[kind].precision == "float"
    assert rows(q)["conv2d"].precision == "int8"
    assert octavo.sqnr(net(x), q(x)) > 30
    assert octavo.sqnr(q(x), q.compile()(x)) > 40


THROUGH = {
    "max_pool2d": nn.MaxPool2d(2),
    "max_pool2d ceil": nn.MaxPool2d(3, 2, ceil_mode=True),
    "upsample_nearest2d": nn.Upsample(scale_factor=2),
    "pad": nn.ConstantPad2d(1, 0.0),
    "pad reflect": nn.ReflectionPad2d(1),
    "reshape": lam(lambda x: x.reshape(x.shape[0], 8, 4, 16)),
    "view": lam(lambda x: x.view(-1, 8, 16, 4)),
    "permute": lam(lambda x: x.permute(0, 1, 3, 2)),
    "transpose": lam(lambda x: x.transpose(2, 3)),
    "slice": lam(lambda x: x[:, :, 1:6:2]),
    "select": lam(lambda x: x[:, :, 3].unsqueeze(2)),
    "split": lam(lambda x: x.split(3, dim=2)[1]),
    "chunk": lam(lambda x: x.chunk(2, dim=3)[0]),
    "squeeze": lam(lambda x: x.unsqueeze(1).squeeze(1)),
    "expand": lam(lambda x: x[:, :, :1].expand(-1, -1, 5, -1)),
    "pixel_shuffle": lam(lambda x: F.pixel_unshuffle(F.pixel_shuffle(x, 2), 2)),
    "unbind": lam(lambda x: torch.stack(x.unbind(2)[:2], 2).reshape(x.shape[0], 8, 2, 8)),
    "reshape_as": lam(lambda x: x.flatten(1).reshape_as(x)),
    "ravel": lam(lambda x: x.ravel().reshape(-1, 8, 8, 8)),
    "unfold": lam(lambda x: x.unfold(2, 4, 3).flatten(3)),
    "index": lam(lambda x: x[:, [3, 1, 2, 0, 7, 6, 5, 5]]),
    "index of two": lam(lambda x: x[:, :, [[0, 3], [2, 1]], [[1], [5]]]),
    "gather": lam(lambda x: x.gather(3, PICKED.expand(x.shape[0], 8, 8, 3))),
    "take": lam(lambda x: x.take(PICKED.expand(x.shape[0], 8, 8, 3))),
    "take_along_dim": lam(lambda x: x.take_along_dim(PICKED, 3)),
    "upsample_nearest-exact": lam(lambda x: F.interpolate(x, size=(11, 5), mode="nearest-exact")),
    "upsample_nearest-exact 1d": lam(
        lambda x: F.interpolate(x.flatten(2), scale_factor=2, mode="nearest-exact").unsqueeze(3)
    ),
    "pad replicate": lam(lambda x: F.pad(x.flatten(2), (1, 2), mode="replicate").unsqueeze(3)),
    "pad reflect 3d": lam(
        lambda x: F.pad(x.unsqueeze(1), (1, 1, 0, 2, 1, 1), mode="reflect")[:, 0, 1:-1]
    ),
    "im2col": lam(lambda x: F.unfold(x, 2, stride=2)[:, ::4].unsqueeze(3)),
    "tril": lam(lambda x: x.tril(1)),
    "triu": lam(lambda x: x.triu()),
    "amax": lam(lambda x: x.amax((2, 3), keepdim=True)),
    "amin": lam(lambda x: x.amin(3, keepdim=True)),
}
PICKED = torch.randint(0, 8, (1, 1, 1, 3))


def zero(parts, q, scale):
    """The zero_point that goes with a scale."""
    node = next(n for n in q.graph.nodes if n.target is ops.quantize and n.args[1] is scale)
    return parts.env[node.args[2]]


@pytest.mark.parametrize("kind", THROUGH)
def test_integers_pass_through(kind):
    net = nn.Sequential(nn.Conv2d(3, 8, 1), THROUGH[kind], nn.Conv2d(8, 4, 1))
    x = torch.randn(4, 3, 8, 8)
    q = quantize(net, x)
    moved = [r for r in q.report().rows if r.operator != "expand" or r.precision == "int8"]
    assert {r.precision for r in moved} == {"int8"}  # the other expands are of indices
    scales = [n.args[1] for n in q.graph.nodes if n.target is ops.quantize]
    assert len(set(scales)) == 2  # the input's and the first convolution's
    # exact: the same values as when the operator moves floats and they are rounded before it
    first, last = (n for n in q.graph.nodes if n.target is torch.ops.aten.conv2d.default)
    parts = fx.Interpreter(q.graph_module, garbage_collect_values=False)
    parts.run(x)
    rounded = parts.env[first] / parts.env[scales[1]]
    rounded = (rounded.round() + zero(parts, q, scales[1])).clamp(0, 255)
    rounded = (rounded - zero(parts, q, scales[1])) * parts.env[scales[1]]
    torch.testing.assert_close(parts.env[last.args[0]], net[1](rounded), rtol=1e-6, atol=1e-6)
    assert octavo.sqnr(net(x), q(x)) > 30
    assert octavo.sqnr(q(x), q.compile()(x)) > 40


AVERAGES = {
    "avg_pool2d": nn.AvgPool2d(2),
    "avg_pool2d counting its padding": nn.AvgPool2d(3, 2, 1),
    "avg_pool2d one padding for all": lam(lambda x: torch._C._nn.avg_pool2d(x, [3], [2], [1])),
    "avg_pool2d of all sorts": nn.AvgPool2d((3, 2), 2, (1, 0), ceil_mode=True),
    "avg_pool2d padded": nn.AvgPool2d(3, 2, 1, count_include_pad=False),
    "adaptive_avg_pool2d": nn.AdaptiveAvgPool2d(1),
    "adaptive_avg_pool2d 3": nn.AdaptiveAvgPool2d(3),
    "mean": lam(lambda x: x.mean((2, 3), keepdim=True)),
}


@pytest.mark.parametrize("kind", AVERAGES)
def test_averages_read_integers(kind):
    net = nn.Sequential(nn.Conv2d(3, 8, 1), AVERAGES[kind], nn.Conv2d(8, 4, 1))
    x = torch.randn(4, 3, 8, 8)
    q = quantize(net, x)
    assert rows(q)[kind.split()[0]].precision == "int8"
    assert octavo.sqnr(net(x), q(x)) > 30
    assert octavo.sqnr(q(x), q.compile()(x)) > 40


class Between(nn.Module):
    """An operator between two convolutions."""

    def __init__(self, fn):
        super().__init__()
        self.first, self.last, self.fn = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 4, 1), fn

    def forward(self, x):
        return self.last(self.fn(self.first(x).relu()))


@pytest.mark.parametrize("align", [False, True])
@pytest.mark.parametrize("size", [(16, 16), (5, 11)])
def test_bilinear_interpolation_reads_and_gives_integers(align, size):
    net = Between(lambda x: F.interpolate(x, size=size, mode="bilinear", align_corners=align))
    q, x = quantize(net, torch.randn(8, 3, 8, 8)), torch.randn(3, 3, 8, 8)
    row = rows(q)["upsample_bilinear2d"]
    assert (row.precision, row.activation_bits) == ("int8", 8)
    assert row.low <= 0 < row.high
    assert octavo.sqnr(net(x), q(x)) > 30
    for engine in ("openvino", "torch_int8", "onnxruntime"):
        assert octavo.sqnr(q(x), q.compile(engine)(x)) > 35


def test_a_sum_reads_and_gives_integers():
    net = Between(lambda x: x.sum(dim=(2, 3), keepdim=True) / 8)
    q, x = quantize(net, torch.randn(8, 3, 8, 8)), torch.randn(3, 3, 8, 8)
    assert octavo.sqnr(net(x), q(x)) > 30
    plain = Between(lambda x: x.sum(dim=(2, 3), keepdim=True))
    q = quantize(plain, torch.randn(8, 3, 8, 8))
    assert rows(q)["sum"].precision == "int8"
    assert octavo.sqnr(plain(x), q(x)) > 30
    for engine in ("openvino", "torch_int8", "onnxruntime"):
        assert octavo.sqnr(q(x), q.compile(engine)(x)) > 35


def test_a_sum_of_integers_stays_as_it_is():
    class Counted(nn.Module):
        def __init__(self):
            super().__init__()
            self.embed, self.head = nn.Embedding(9, 6), nn.Linear(6, 2)

        def forward(self, ids):
            count = (ids > 0).sum(1, keepdim=True)
            return self.head(self.embed(ids).sum(1) / count)

    net, ids = Counted(), torch.randint(1, 9, (16, 5))
    q = quantize(net, ids)
    reasons = [r.reason for r in q.report().rows if r.operator == "sum"]
    assert "its input is not a floating point tensor" in reasons
    assert octavo.sqnr(net(ids), q(ids)) > 30


def test_every_kind_has_a_rule_and_every_row_with_a_kind_is_registered():
    assert set(RULES) == set(Kind)
    patterns = {p for p in octavo.DEFAULT_PATTERNS if not isinstance(p, tuple)}
    assert all(row.pattern in patterns for row in OPERATORS.values() if row.kind)


def test_no_nodes_make_no_site():
    with pytest.raises(IndexError):
        _ = RULES[Kind.LAYOUT]([]).operator


# ---- recurrent layers


class Two(nn.Module):
    """A bidirectional LSTM, given first states, and a linear layer on what it returns."""

    def __init__(self):
        super().__init__()
        self.layer, self.head = nn.LSTM(6, 5, bidirectional=True), nn.Linear(10, 3)

    def forward(self, x, h, c):
        return self.head(self.layer(x, (h, c))[0])


def two(**settings):
    batches = [(torch.randn(n, 4, 6), torch.randn(2, 4, 5), torch.randn(2, 4, 5)) for n in (7, 9)]
    net = Two()
    return net, octavo.quantize(net, batches, config=octavo.Config(min_sqnr=0, **settings))


def test_recurrent_layers_compute_in_float_with_int8_weights():
    net, q = two()
    (row,) = [r for r in q.report().rows if r.operator == "lstm"]
    assert (row.precision, row.weight_bits, row.activation_bits) == ("float", 8, None)
    assert row.reason == "rounding errors would accumulate in its state; weights are int8"
    matrices = 2 * 20 * (6 + 5)
    assert row.bytes_before - row.bytes_after == 3 * matrices - 4 * 4 * 20  # a scale for each row
    stored = [b for b in q.graph_module.buffers() if b.dtype == torch.int8 and b.shape[0] == 20]
    assert len(stored) == 4
    x, h, c = torch.randn(5, 2, 6), torch.randn(2, 2, 5), torch.randn(2, 2, 5)
    assert octavo.sqnr(net.layer(x, (h, c))[0], rounded(net.layer)(x, (h, c))[0]) > 40


def rounded(layer):
    """A copy whose matrices are rounded to 127 steps of each row."""
    layer = copy.deepcopy(layer)
    for p in layer.parameters():
        if p.dim() == 2:
            step = p.abs().amax(1, keepdim=True) / 127
            p.copy_((p / step).round() * step)
    return layer


def test_the_reference_computes_with_the_rounded_weights():
    net, q = two(sites={"head": octavo.SiteConfig("float", "float")})
    net.layer = rounded(net.layer)
    inputs = torch.randn(5, 4, 6), torch.randn(2, 4, 5), torch.randn(2, 4, 5)
    torch.testing.assert_close(q(*inputs), net(*inputs))


def test_a_recurrent_layer_kept_float_keeps_its_weights():
    _, q = two(keep_float=["layer"])
    (row,) = [r for r in q.report().rows if r.operator == "lstm"]
    assert (row.weight_bits, row.reason) == (None, "keep_float='layer'")
