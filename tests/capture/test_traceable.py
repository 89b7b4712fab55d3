"""What torch.export would fix or refuse."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import octavo
from octavo.capture.export import capture
from octavo.capture.traceable import traceable


class Ramp(nn.Module):
    def __init__(self, *ends, **options):
        super().__init__()
        self.ends, self.options = ends, options

    def forward(self, x):
        return x + torch.linspace(*self.ends, x.shape[1], **self.options)


def captured(net):
    return capture(net, (torch.zeros(2, 5),), None, [((torch.zeros(2, 7),), {})])


@settings(max_examples=15)
@given(st.floats(-100, 100), st.floats(-100, 100))
def test_a_ramp_over_a_free_length(start, end):
    graph, signature = captured(Ramp(start, end))
    assert signature.inputs == (("float32", (None, None)),)
    for n in (1, 2, 3, 50):
        wanted = torch.linspace(start, end, n)
        got = graph(torch.zeros(1, n))[0][0]
        torch.testing.assert_close(got, wanted, rtol=0, atol=1e-6 * (abs(start) + abs(end)) + 1e-40)
        assert (got[0], got[-1]) == (wanted[0], wanted[-1])


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float16, 1e-3), (torch.float64, 1e-12)])
def test_dtypes(dtype, tolerance):
    graph, _ = captured(Ramp(-1, 1, dtype=dtype))
    for n in (4, 3000):
        wanted = torch.zeros(1, n) + torch.linspace(-1, 1, n, dtype=dtype)
        torch.testing.assert_close(graph(torch.zeros(1, n))[0], wanted, rtol=0, atol=tolerance)


def test_integers_and_fixed_lengths_are_left_to_torch():
    graph, signature = captured(Ramp(0, 100, dtype=torch.int64))
    assert signature.inputs == (("float32", (None, 5)),)
    assert graph(torch.zeros(1, 5))[0].tolist() == [[0, 25, 50, 75, 100]]
    with traceable():
        assert torch.equal(torch.linspace(0, 1, steps=3), torch.tensor([0, 0.5, 1]))


def test_a_ramp_that_torch_refuses():
    with pytest.raises(octavo.DataError, match="dtype"):
        captured(Ramp(0, 1, dtype="float32"))


class Places(nn.Module):
    """Adds the place in the image to the channels."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(5, 4, 3, padding=1)

    def forward(self, x):
        high, wide = (torch.linspace(-1, 1, n) for n in x.shape[2:])
        grid = torch.stack(torch.meshgrid(high, wide, indexing="ij"))
        return self.conv(torch.cat([x, grid.expand(x.shape[0], -1, -1, -1)], 1)).relu()


@pytest.mark.parametrize("engine", ["openvino", "onnxruntime", "torch_int8"])
def test_a_grid_over_a_free_image(engine):
    net = Places().eval()
    q = octavo.quantize(net, [torch.rand(2, 3, n, n + 2) for n in (12, 9, 16)], config="fast")
    fast = q.compile(engine, check=False)
    for shape in ((1, 3, 5, 20), (3, 3, 14, 7)):
        x = torch.rand(shape)
        assert octavo.sqnr(net(x), q(x)) > 30
        assert octavo.sqnr(q(x), fast(x)) > 40


class Encoder(nn.Module):
    def __init__(self):
        super().__init__()
        layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)

    def forward(self, x, mask=None):
        if mask is None:
            mask = nn.Transformer.generate_square_subsequent_mask(x.shape[1])
        return self.encoder(x, mask=mask)


def test_a_transformer_that_looks_at_its_mask():
    net = Encoder().eval()
    calls = [((torch.randn(2, n, 8),), {}) for n in (5, 7)]
    graph, signature = capture(net, *calls[0], [calls[1]])
    assert signature.inputs == (("float32", (None, None, 8)),)
    x = torch.randn(3, 9, 8)
    torch.testing.assert_close(graph(x)[0], net(x))


def test_a_mask_that_is_given_is_applied_whatever_it_is():
    net, x = Encoder().eval(), torch.randn(2, 5, 8)
    graph, _ = capture(net, (x, torch.zeros(5, 5)))
    for mask in (torch.zeros(5, 5), nn.Transformer.generate_square_subsequent_mask(5)):
        torch.testing.assert_close(graph(x, mask)[0], net(x, mask))


class Pooled(nn.Module):
    def __init__(self, pool):
        super().__init__()
        self.pool = pool

    def forward(self, x):
        return self.pool(x - 2)


def larger(y):
    z = F.interpolate(y, scale_factor=1.5, mode="bilinear")
    return F.max_pool2d(z, z.shape[2:])


@pytest.mark.parametrize(
    ("rank", "pool"),
    [
        (1, lambda y: F.avg_pool1d(y, y.shape[2])),
        (1, lambda y: F.max_pool1d(y, kernel_size=y.size(-1))),
        (2, lambda y: F.avg_pool2d(y, y.shape[2:])),
        (2, lambda y: F.avg_pool2d(y, y.size()[2:], y.size()[2:], 0, True, False, None)),
        (2, lambda y: F.max_pool2d(y, (y.size(2), y.size(3)), stride=1)),
        (2, lambda y: nn.MaxPool2d(y.shape[2:], padding=(0, 0))(y)),
        (2, larger),
        (3, lambda y: F.avg_pool3d(y, y.shape[2:])),
        (3, lambda y: F.max_pool3d(y, y.shape[2:])),
    ],
)
def test_a_pool_over_the_whole_of_a_free_image(rank, pool):
    images = [torch.randn(2, 3, *range(n, n + rank)) for n in (5, 9, 3, 14)]
    net = Pooled(pool).eval()
    graph, signature = capture(net, (images[0],), None, [((x,), {}) for x in images[1:3]])
    assert signature.inputs == (("float32", (None, 3, *[None] * rank)),)
    assert signature.branches == ()
    for x in images:
        torch.testing.assert_close(graph(x)[0], net(x))


@pytest.mark.parametrize(
    "pool",
    [
        lambda y: F.avg_pool2d(y, y.shape[2:], divisor_override=3),
        lambda y: F.avg_pool2d(y, y.shape[2:], padding=1),
        lambda y: F.max_pool2d(y, (y.shape[2], 2)),
        lambda y: F.max_pool2d(y, y.shape[2:], return_indices=True),
        lambda y: F.max_pool2d(y, y.shape[2:], None, 0, 1, False, True),
    ],
)
def test_other_pools_with_the_size_of_an_image_fix_it(pool):
    images = [torch.randn(2, 3, n, n + 1) for n in (5, 9)]
    net = Pooled(pool).eval()
    graph, signature = capture(net, (images[0],), None, [((images[1],), {})])
    assert signature.inputs[0][1][2] == 5
    expected = net(images[0])
    torch.testing.assert_close(
        graph(images[0]), expected if isinstance(expected, tuple) else (expected,)
    )
