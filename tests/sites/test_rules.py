"""Every operator family: that it becomes int8, and that the numbers are integer arithmetic's."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import octavo
from octavo import Config
from octavo.graph import ops
from octavo.graph.names import operator_name


def lam(fn):
    class Lambda(nn.Module):
        def forward(self, x):
            return fn(x)

    return Lambda()


def quantize(net, x):
    return octavo.quantize(net.eval(), x, config=Config(observer="minmax", min_sqnr=0))


def rows(q):
    return {r.operator: r for r in q.report().rows}


CONVOLUTIONS = {
    "1d": (nn.Conv1d(8, 12, 3), (8, 16)),
    "2d": (nn.Conv2d(8, 12, 3, stride=2, padding=1), (8, 12, 12)),
    "3d": (nn.Conv3d(8, 12, 3), (8, 6, 6, 6)),
    "grouped": (nn.Conv2d(8, 12, 3, groups=4), (8, 12, 12)),
    "depthwise": (nn.Conv2d(8, 16, 3, groups=8, padding=1), (8, 12, 12)),
    "dilated": (nn.Conv2d(8, 12, 3, dilation=2), (8, 12, 12)),
    "same": (nn.Conv2d(8, 12, 4, padding="same"), (8, 12, 12)),
    "valid": (nn.Conv1d(8, 12, 4, padding="valid"), (8, 12)),
    "no bias": (nn.Conv2d(8, 12, 3, bias=False), (8, 12, 12)),
    "transposed 1d": (nn.ConvTranspose1d(8, 12, 4, 2, 1), (8, 12)),
    "transposed 2d": (nn.ConvTranspose2d(8, 12, 3, 2, 1, output_padding=1), (8, 6, 6)),
    "transposed grouped": (nn.ConvTranspose2d(8, 12, 3, groups=4), (8, 6, 6)),
    "linear": (nn.Linear(8, 12), (8,)),
    "linear 3-d": (nn.Linear(8, 12), (5, 8)),
}


@pytest.mark.parametrize("kind", CONVOLUTIONS)
def test_weighted_operators(kind):
    layer, shape = CONVOLUTIONS[kind]
    x = torch.randn(6, *shape) + 0.5
    q = octavo.quantize(layer, x, config="fast")
    (row,) = q.report().rows
    assert (row.precision, row.weight_bits, row.activation_bits) == ("int8", 8, 8)
    # the same by hand: fake quantized input and weight through the float layer
    low, high = min(0.0, x.min().item()), max(0.0, x.max().item())
    scale = (high - low) / 255
    fake_x = torch.fake_quantize_per_tensor_affine(x, scale, round(-low / scale), 0, 255)
    axis = 1 if kind.startswith("transposed") else 0
    largest = layer.weight.abs().amax([d for d in range(layer.weight.dim()) if d != axis])
    zeros = torch.zeros(len(largest), dtype=torch.int32)
    fake_w = torch.fake_quantize_per_channel_affine(
        layer.weight, largest / 127, zeros, axis, -127, 127
    )
    expected = torch.func.functional_call(layer, {"weight": fake_w}, fake_x)
    assert octavo.sqnr(expected, q(x)) > 50  # a value in a few thousand is on the other side of .5
    assert octavo.sqnr(q(x), q.compile()(x)) > 40


def test_integer_arithmetic_by_hand():
    """A linear layer's output is scale_x * scale_w * (integer dot product) + bias, exactly."""
    layer = nn.Linear(16, 3)
    x = torch.randn(5, 16) + 0.5
    q = octavo.quantize(layer, x, config="fast")
    tensors = dict(q.graph_module.named_buffers())
    s = next(v for k, v in tensors.items() if k.endswith(".scale"))
    z = next(v for k, v in tensors.items() if k.endswith(".zero_point"))
    qx = ops.quantize(x, s, z, 0, 255, torch.uint8).long() - z
    dot = qx @ tensors["weight_int8"].long().T
    expected = dot * s * tensors["weight_scale"] + layer.bias
    torch.testing.assert_close(q(x), expected)


@pytest.mark.parametrize("high, signed", [(4.0, True), (4.8, True), (5.2, False)])
@pytest.mark.parametrize("layer", [nn.Linear(4, 3), nn.Conv2d(4, 3, 1)], ids=["linear", "conv"])
def test_what_linears_read_has_no_zero_point_if_nearly_symmetric(layer, high, signed):
    """8 / (4 + 4) = 1, 9.6 / 8.8 = 1.09 and 10.4 / 9.2 = 1.13 times as wide as it must be."""
    shape = (8, 4) if isinstance(layer, nn.Linear) else (8, 4, 2, 2)
    x = torch.rand(shape)
    x.view(-1)[0], x.view(-1)[1] = -4.0, high
    tensors = dict(quantize(layer, x).graph_module.named_buffers())
    scale, zero_point = (
        next(v for k, v in tensors.items() if k.endswith(end)) for end in (".scale", ".zero_point")
    )
    if signed and isinstance(layer, nn.Linear):
        assert (zero_point, scale) == (0, pytest.approx(high / 127))
    else:
        assert (zero_point, scale) == (round(4 * 255 / (4 + high)), pytest.approx((4 + high) / 255))


def test_roll_is_in_float_and_quantized_after():
    class Shifted(nn.Module):
        def __init__(self):
            super().__init__()
            self.norm, self.fc = nn.LayerNorm(8), nn.Linear(8, 8)

        def forward(self, x):
            return self.fc(self.norm(x).roll((1, -2), (1, 2)).flatten(1, 2))

    x = torch.randn(4, 6, 6, 8)
    q = quantize(Shifted(), x)
    assert (rows(q)["roll"].precision, rows(q)["roll"].reason) == ("float", "quantized after it")
    (quantized,) = [n for n in q.graph.nodes if n.target is ops.quantize]
    assert quantized.args[0].target is torch.ops.aten.roll.default
    assert octavo.sqnr(q(x), q.compile()(x)) > 40


ACTIVATIONS = {
    "relu": nn.ReLU(),
    "hardtanh": nn.Hardtanh(-0.5, 0.7),
    "hardtanh of relu6": nn.ReLU6(),
    "clamp": lam(lambda x: x.clamp(-0.3, 0.8)),
    "clamp from below": lam(lambda x: x.clamp(min=-0.3)),
    "leaky_relu": nn.LeakyReLU(0.2),
    "prelu": nn.PReLU(8),
    "hardswish": nn.Hardswish(),
    "silu": nn.SiLU(),
    "gelu": nn.GELU(),
    "gelu tanh": nn.GELU(approximate="tanh"),
    "sigmoid": nn.Sigmoid(),
    "hardsigmoid": nn.Hardsigmoid(),
    "tanh": nn.Tanh(),
}


@pytest.mark.parametrize("kind", ACTIVATIONS)
@pytest.mark.parametrize("layer", [nn.Conv2d(8, 8, 3), nn.ConvTranspose2d(8, 8, 2)], ids=["c", "t"])
def test_an_activation_fuses_where_it_follows(kind, layer):
    net = nn.Sequential(layer, ACTIVATIONS[kind], nn.Conv2d(8, 4, 1))
    x = torch.randn(4, 8, 8, 8)
    q = quantize(net, x)
    first, second = q.report().rows
    assert first.operator.endswith(" + " + kind.split()[0])
    assert {first.precision, second.precision} == {"int8"}
    assert octavo.sqnr(net(x), q(x)) > 28
    assert octavo.sqnr(q(x), q.compile()(x)) > 35


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
}


@pytest.mark.parametrize("kind", THROUGH)
def test_integers_pass_through(kind):
    net = nn.Sequential(nn.Conv2d(3, 8, 1), THROUGH[kind], nn.Conv2d(8, 4, 1))
    x = torch.randn(4, 3, 8, 8)
    q = quantize(net, x)
    if kind != "unbind":  # stack has no rule
        assert {r.precision for r in q.report().rows} == {"int8"}
        assert len([n for n in q.graph.nodes if n.target is ops.quantize]) <= 3
        scales = [n.args[1] for n in q.graph.nodes if n.target is ops.quantize]
        assert len(set(scales)) == 2  # the input's and the first convolution's
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


class Join(nn.Module):
    def __init__(self, join):
        super().__init__()
        self.a, self.b, self.last = nn.Conv2d(3, 8, 1), nn.Conv2d(3, 8, 1), nn.Conv2d(8, 4, 1)
        self.join = join

    def forward(self, x):
        return self.last(self.join(self.a(x), self.b(x)))


JOINS = {
    "add": lambda a, b: a + b,
    "add + relu": lambda a, b: F.relu(a + b),
    "mul": lambda a, b: a * b,
    "cat": lambda a, b: torch.cat([a[:, :4], b[:, 4:]], 1),
}


@pytest.mark.parametrize("kind", JOINS)
def test_joins_of_two_activations(kind):
    net, x = Join(JOINS[kind]), torch.randn(4, 3, 8, 8)
    q = quantize(net, x)
    assert rows(q)[kind].precision == "int8"
    assert octavo.sqnr(net(x), q(x)) > 28
    assert octavo.sqnr(q(x), q.compile()(x)) > 35


@pytest.mark.parametrize("shared", [False, True])
def test_an_add_takes_the_last_convolution_unrounded_unless_others_read_it(shared):
    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.stem, self.a, self.last = (nn.Conv2d(3, 3, 3, padding=1) for _ in range(3))

        def forward(self, x):
            x = self.stem(x)
            y = self.a(x)
            total = self.last(x + y)
            return (total, y) if shared else total

    q = quantize(Block(), torch.randn(4, 3, 8, 8))
    (add,) = [n for n in q.graph.nodes if n.target is torch.ops.aten.add.Tensor]
    kinds = [n.target for n in add.args[:2]]
    assert kinds == [ops.dequantize, ops.dequantize if shared else ops.fuse_in_accumulator]
    assert all(n.users for n in q.graph.nodes if n.op != "output")
    assert rows(q)["add"].precision == "int8"


def test_an_add_that_layer_norm_reads_stays_float():
    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b, self.norm = nn.Linear(8, 8), nn.Linear(8, 8), nn.LayerNorm(8)

        def forward(self, x):
            return self.b(self.norm(x + self.a(x)))

    q = quantize(Block(), torch.randn(4, 5, 8))
    assert (rows(q)["add"].precision, rows(q)["add"].reason) == (
        "float",
        "not between convolutions",
    )


def test_attention_s_products_are_int8_without_zero_points():
    class Attention(nn.Module):
        def __init__(self):
            super().__init__()
            self.q, self.k, self.v = (nn.Linear(16, 16) for _ in range(3))

        def forward(self, x):
            a = (self.q(x) @ self.k(x).transpose(1, 2)).softmax(-1)
            return torch.bmm(a, self.v(x))

    net, x = Attention(), torch.randn(4, 10, 16)
    q = quantize(net, x)
    for name in ("matmul", "bmm"):
        assert rows(q)[name].precision == "int8"
        node = next(n for n in q.graph.nodes if operator_name(n) == name)
        for operand in node.args[:2]:
            zero_point = operand.args[2]
            assert dict(q.graph_module.named_buffers())[zero_point.target] == 0
    assert octavo.sqnr(net(x), q(x)) > 28
    assert octavo.sqnr(q(x), q.compile()(x)) > 35


def test_a_product_with_a_constant_is_a_linear_layer():
    class Product(nn.Module):
        def __init__(self):
            super().__init__()
            self.w = nn.Parameter(torch.randn(8, 6) * torch.logspace(-2, 2, 6))

        def forward(self, x):
            return x @ self.w

    net, x = Product(), torch.randn(16, 8)
    q = quantize(net, x)
    assert dict(q.graph_module.named_buffers())["w_axis1_scale"].shape == (6,)
    for channel in range(6):  # each column has its own scale
        assert octavo.sqnr(net(x)[:, channel], q(x)[:, channel]) > 28
    assert octavo.sqnr(q(x), q.compile()(x)) > 40


@pytest.mark.parametrize(
    ("fn", "operator", "reason"),
    [
        (lambda x: torch.cumsum(x, 1), "cumsum", "no rule for cumsum"),
        (lambda x: x + 1, "add", "has a constant operand"),
        (lambda x: F.pad(x, (1, 1), value=3.0), "pad", "pads with 3.0, not 0"),
        (lambda x: x.transpose(1, 2), "transpose", "no int8 operator reads its output"),
    ],
)
def test_what_stays_float_says_why(fn, operator, reason):
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv1d(3, 4, 1)

        def forward(self, x):
            return fn(self.conv(x))

    net, x = Net(), torch.randn(4, 3, 8)
    q = quantize(net, x)
    assert (rows(q)[operator].precision, rows(q)[operator].reason) == ("float", reason)
    assert octavo.sqnr(net(x), q(x)) > 28


def test_a_weight_that_is_computed_stays_float():
    class Scaled(nn.Module):
        def forward(self, x):
            return F.linear(x, x.mean(0, keepdim=True).expand(3, -1) * 2)

    q = quantize(Scaled(), torch.randn(4, 8))
    assert rows(q)["linear"].precision == "float"
    assert "computed by the model" in rows(q)["linear"].reason


def test_adding_an_operator_takes_a_few_lines():
    """The README's example."""
    table = dict(octavo.DEFAULT_PATTERNS)
    try:

        @octavo.register_pattern(nn.ELU)
        class Elu(octavo.FloatOp):
            """elu in float, between int8 neighbours."""

        net = nn.Sequential(nn.Conv2d(3, 8, 1), nn.ELU(), nn.Conv2d(8, 4, 1))
        x = torch.randn(4, 3, 8, 8)
        q = quantize(net, x)
        assert rows(q)["elu"].reason == "between int8 operators"
        assert octavo.sqnr(net(x), q(x)) > 30
        assert octavo.sqnr(q(x), q.compile()(x)) > 40
    finally:
        octavo.DEFAULT_PATTERNS.clear()
        octavo.DEFAULT_PATTERNS.update(table)


def test_a_rule_that_asks_for_an_unobserved_value_is_told():
    class Greedy(octavo.Rule):
        def emit(self, emitter):
            return emitter.load_arg(self.root.args[1])

    quantizer = octavo.Quantizer(nn.Linear(3, 3), patterns={nn.Linear: Greedy})
    quantizer.observe(torch.rand(2, 3))
    with pytest.raises(octavo.ConversionError, match="nothing asked for its range"):
        quantizer.quantize()


@pytest.mark.parametrize("operator", [torch.matmul, torch.bmm])
def test_a_constant_stack_of_matrices_stays_float(operator):
    """As in relative positions: OpenVINO's int8 kernel multiplies it wrongly."""

    class Stack(nn.Module):
        def __init__(self):
            super().__init__()
            self.first = nn.Linear(8, 8)
            self.stack = nn.Parameter(torch.randn(6, 8, 5))

        def forward(self, x):
            return operator(self.first(x).permute(1, 0, 2), self.stack)

    q = quantize(Stack(), torch.randn(32, 6, 8))
    x = torch.randn(9, 6, 8)
    assert octavo.sqnr(q(x), q.compile()(x)) > 50
    (row,) = [r for r in q.report().rows if r.operator in ("matmul", "bmm")]
    assert (row.precision, "stack of matrices" in row.reason) == ("float", True)


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
