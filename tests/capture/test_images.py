import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

import octavo
from octavo.capture.images import Image, alike, images_of

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def network():
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 4, 3, stride=2, padding=1)
    ).eval()


def bytes_of(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)


def normalized(pixels):
    """As torchvision does: ToTensor and Normalize."""
    mean, std = (torch.tensor(v)[:, None, None] for v in (MEAN, STD))
    return (pixels.permute(0, 3, 1, 2).float() / 255 - mean) / std


@given(st.lists(st.floats(0, 1), min_size=1, max_size=4), st.data())
def test_images_are_normalized_as_by_hand_and_back(mean, data):
    deviation = st.floats(0.05, 1)
    std = data.draw(st.lists(deviation, min_size=len(mean), max_size=len(mean)))
    pixels = bytes_of(2, 3, 5, len(mean))
    image = Image(mean, std)
    by_hand = ((pixels.numpy() / 255 - np.array(mean)) / np.array(std)).transpose(0, 3, 1, 2)
    x = image.normalize(pixels)
    np.testing.assert_allclose(x, by_hand, rtol=0, atol=1e-6 / min(std))
    assert torch.equal(image.to_bytes(x), pixels)
    planar = Image(mean, std, "NCHW")
    torch.testing.assert_close(planar.normalize(pixels.permute(0, 3, 1, 2)), x)
    assert torch.equal(planar.to_bytes(x), pixels.permute(0, 3, 1, 2))


def test_integers_are_those_of_normalized_images_to_a_step():
    data = [bytes_of(4, 16, 16, 3, seed=i) for i in range(4)]
    q = octavo.quantize(network(), data, inputs=Image(MEAN, STD))
    first = next(n for n in q.graph.nodes if n.target is torch.ops.octavo.quantize.default)
    scale, zero_point = (q.graph_module.get_buffer(n.target) for n in first.args[1:3])
    pixels = bytes_of(3, 16, 16, 3, seed=9)
    values = torch.fx.Interpreter(q.graph_module, garbage_collect_values=False)
    values.run(pixels)
    integers = values.env[first].int().reshape(pixels.shape).permute(0, 3, 1, 2)
    wanted = normalized(pixels).double() / scale + zero_point
    assert (integers - wanted.round().clamp(0, 255)).abs().max() <= 1
    assert (integers - wanted.round().clamp(0, 255)).ne(0).double().mean() < 1e-3


@pytest.mark.parametrize("engine", ["openvino", "onnxruntime", "torch_int8", "reference"])
@pytest.mark.parametrize("layout", ["NHWC", "NCHW"])
def test_engines_take_bytes_of_any_batch(engine, layout, tmp_path):
    net, move = network(), (lambda t: t) if layout == "NHWC" else (lambda t: t.permute(0, 3, 1, 2))
    data = [move(bytes_of(4, 16, 16, 3, seed=i)) for i in range(4)]
    q = octavo.quantize(net, data, inputs=Image(MEAN, STD, layout))
    octavo.save(q, tmp_path / "net.octavo")
    again = octavo.load(tmp_path / "net.octavo")
    assert again.signature.images == (("input", Image(MEAN, STD, layout)),)
    run = again.compile(engine)
    for batch in (1, 3):
        pixels = bytes_of(batch, 16, 16, 3, seed=9)
        assert octavo.sqnr(net(normalized(pixels)), run(move(pixels))) > 30


@pytest.mark.parametrize("engine", ["openvino", "onnxruntime", "torch_int8", "reference"])
def test_images_of_any_size(engine):
    net, data = network(), [bytes_of(4, 16, 20, 3), bytes_of(4, 24, 28, 3)]
    q = octavo.quantize(net, data, inputs=Image(MEAN, STD))
    assert q.signature.inputs == (("uint8", (None, None, None, 3)),)
    run = q.compile(engine)
    for shape in ((1, 9, 31, 3), (3, 40, 12, 3)):
        pixels = bytes_of(*shape, seed=9)
        assert octavo.sqnr(net(normalized(pixels)), run(pixels)) > 30
        assert octavo.sqnr(net(normalized(pixels)), run(pixels.numpy())) > 30


def test_exported_files_take_bytes(tmp_path):
    onnxruntime = pytest.importorskip("onnxruntime")
    net = network()
    q = octavo.quantize(net, bytes_of(16, 16, 16, 3), inputs=Image(MEAN, STD))
    octavo.export(q, tmp_path / "net.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "net.onnx")
    assert session.get_inputs()[0].type == "tensor(uint8)"
    pixels = bytes_of(5, 16, 16, 3, seed=9)
    (y,) = session.run(None, {session.get_inputs()[0].name: pixels.numpy()})
    assert octavo.sqnr(net(normalized(pixels)), torch.from_numpy(y)) > 30


def test_calibration_with_normalized_images_is_the_same():
    net, data = network(), [bytes_of(4, 16, 16, 3, seed=i) for i in range(4)]
    by_bytes = octavo.quantize(net, data, inputs=Image(MEAN, STD))
    labelled = [(normalized(pixels), torch.zeros(4)) for pixels in data]
    by_floats = octavo.quantize(net, labelled, inputs=Image(MEAN, STD))
    assert torch.equal(by_bytes(data[0]), by_floats(data[0]))


def test_resized_images_of_several_sizes():
    net = nn.Sequential(network(), nn.Flatten(), nn.Linear(4 * 8 * 8, 5)).eval()
    data = [bytes_of(4, 20, 24, 3), bytes_of(4, 32, 40, 3)]
    q = octavo.quantize(net, data, inputs=Image(MEAN, STD, size=(16, 16)))
    pixels = bytes_of(2, 50, 28, 3)
    resized = nn.functional.interpolate(normalized(pixels), (16, 16), mode="bilinear")
    for run in (q, q.compile()):
        assert octavo.sqnr(net(resized), run(pixels)) > 25


class Two(nn.Module):
    """Two arguments, of which the second is an image; dropout, and a parameter of its own."""

    def __init__(self):
        super().__init__()
        self.net, self.scale = network(), nn.Parameter(torch.rand(1))

    def forward(self, x, image=None):
        assert not self.training
        y = self.net(x) * self.scale
        return y if image is None else y + self.net(image)


def test_the_argument_that_is_named(tmp_path):
    net = Two().train()
    data = [(torch.randn(4, 3, 16, 16), bytes_of(4, 16, 16, 3, seed=i)) for i in range(4)]
    q = octavo.quantize(net, data, inputs={"image": Image(MEAN, STD)})
    assert net.training
    assert "forward" not in vars(net)
    x, pixels = torch.randn(2, 3, 16, 16), bytes_of(2, 16, 16, 3, seed=9)
    wanted = net.eval()(x, normalized(pixels))
    assert octavo.sqnr(wanted, q(x, image=pixels)) > 25
    assert octavo.sqnr(wanted, octavo.with_images(net, {"image": Image(MEAN, STD)})(x, pixels)) > 99
    keep = octavo.quantize(net, data, "fast", inputs={"image": Image(MEAN, STD)})
    assert {row.path for row in keep.report().rows} >= {"net.0", "net.2"}


def test_compared_with_the_float_model():
    net, data = network(), bytes_of(16, 16, 16, 3)
    q = octavo.quantize(net, data, inputs=Image(MEAN, STD))
    assert octavo.compare(net, q, data, rounds=1).sqnr > 30
    assert images_of(alike(net, q)) == images_of(q)
    assert alike(q, net) is q
    assert alike(net, net) is net


def test_a_model_in_half_precision():
    net = network().bfloat16()
    q = octavo.quantize(net, bytes_of(16, 16, 16, 3), inputs=Image(MEAN, STD))
    pixels = bytes_of(2, 16, 16, 3, seed=9)
    assert octavo.sqnr(net(normalized(pixels).bfloat16()).float(), q(pixels).float()) > 25


def test_floats_for_bytes_and_bytes_for_floats():
    net, data = network(), bytes_of(16, 16, 16, 3)
    q = octavo.quantize(net, data, "fast", inputs=Image(MEAN, STD))
    with pytest.raises(octavo.CaptureError, match="give them as bytes, NHWC"):
        q(data.float())
    with pytest.raises(octavo.CaptureError, match="give them as bytes, NHWC"):
        q.compile()(data.float())
    with pytest.raises(octavo.CaptureError, match="bytes, NHWC"):
        q(data.permute(0, 3, 1, 2))
    of_floats = octavo.quantize(net, normalized(data), "fast")
    with pytest.raises(octavo.CaptureError, match=r"inputs=octavo\.Image"):
        of_floats(data.permute(0, 3, 1, 2))
    with pytest.raises(octavo.DataError, match=r"inputs=octavo\.Image"):
        octavo.quantize(net, data.permute(0, 3, 1, 2), "fast")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (bytes_of(8, 8, 3), "needs a dimension of the batch"),
        (bytes_of(4, 3, 8, 8), r"not of shape \(4, 3, 8, 8\)"),
        (torch.randn(4, 3, 8, 8) * 9, "were not normalized with mean"),
        (torch.rand(4, 8, 8, 3), "is no batch of normalized images"),
        (torch.zeros(4, 8, 8, 3, dtype=torch.int64), "not torch.int64"),
    ],
)
def test_other_data_is_an_error(data, message):
    with pytest.raises(octavo.DataError, match=message):
        octavo.quantize(network(), data, "fast", inputs=Image(MEAN, STD))


@pytest.mark.parametrize(
    "settings",
    [
        {"mean": [], "std": []},
        {"mean": [0.5], "std": [0.5, 0.5]},
        {"mean": [0.5], "std": [0.0]},
        {"mean": [math.nan], "std": [1.0]},
        {"mean": "0.5", "std": [0.5]},
        {"mean": 0.5, "std": 0.5},
        {"mean": [0.5], "std": [0.5], "layout": "HWC"},
        {"mean": [0.5], "std": [0.5], "size": (0, 4)},
        {"mean": [0.5], "std": [0.5], "size": (4,)},
    ],
)
def test_settings_that_do_not_fit(settings):
    with pytest.raises(octavo.ConfigError):
        Image(**settings)


@pytest.mark.parametrize("inputs", [{"images": Image(MEAN, STD)}, "NHWC", {"input": "NHWC"}])
def test_inputs_that_are_none(inputs):
    with pytest.raises(octavo.ConfigError):
        octavo.quantize(network(), bytes_of(4, 8, 8, 3), inputs=inputs)


def test_not_with_submodules():
    with pytest.raises(octavo.ConfigError, match="inputs and groups are for whole models"):
        octavo.quantize(network(), bytes_of(4, 8, 8, 3), submodules=["0"], inputs=Image(MEAN, STD))
