"""A newcomer's mistakes: each gets one message, which says what was found and what to do."""

import warnings
from collections import UserDict

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import octavo
from octavo import CaptureError, Config, ConfigError, DataError, OctavoError
from octavo.calibrate.data import calls
from octavo.calibrate.mistakes import check_model, explain_call
from octavo.errors import one_line
from samples import Samples, picture


def images(*shape):
    return torch.rand(shape or (4, 3, 8, 8))


def pixels(*shape):
    return torch.randint(0, 256, shape or (4, 3, 8, 8), dtype=torch.uint8)


def cnn(channels=3):
    return nn.Sequential(
        nn.Conv2d(channels, 8, 3),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(8, 2),
    ).eval()


class Two(nn.Module):
    """Takes two tensors."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(4, 4)

    def forward(self, x, mask):
        return self.linear(x) * mask


class OfDict(nn.Module):
    """Takes a dict."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(4, 2)

    def forward(self, batch):
        return self.linear(batch["x"])


def without_warnings(make, *args, **kwargs):
    """What is made with parts of PyTorch that warn of their age or their state."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return make(*args, **kwargs)


def ao_quantized(step):
    ao = torch.ao.quantization
    net = ao.QuantWrapper(nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU())).eval()
    net.qconfig = ao.get_default_qconfig("x86")
    prepared = ao.prepare(net)
    prepared(images())
    return prepared if step == "prepared" else ao.convert(prepared)


# (model, what to do about it); each is refused by check_model
MODELS = {
    "state dict": (lambda: cnn().state_dict(), "not an OrderedDict: if it is a state dict, build"),
    "checkpoint": (lambda: {"model": cnn(), "epoch": 3}, "pass the model in it, under 'model'"),
    "class": (lambda: nn.Linear, r"not the class Linear: pass a model, Linear\(...\)"),
    "path": (lambda: "model.pt", "'model.pt': build the model, and load the file's weights"),
    "data": (lambda: [images()], "the model comes first, then the data"),
    "function": (lambda: torch.relu, "write an nn.Module whose forward calls it"),
    "nothing": (lambda: None, "takes an nn.Module, not None"),
    "exported": (
        lambda: torch.export.export(nn.Linear(4, 2), (torch.rand(2, 4),)),
        "not an ExportedProgram: pass the model that it was exported from",
    ),
    "traced": (
        lambda: without_warnings(torch.jit.trace, cnn(), images()),
        "a TorchScript model .* quantize the model it was made from",
    ),
    "scripted": (lambda: without_warnings(torch.jit.script, cnn()), "a TorchScript model"),
    "scripted part": (
        lambda: nn.Sequential(without_warnings(torch.jit.script, cnn()), nn.ReLU()),
        "'0' is a TorchScript module",
    ),
    "prepared": (lambda: without_warnings(ao_quantized, "prepared"), "Quantize the float model"),
    "quantized": (
        lambda: without_warnings(ao_quantized, "converted"),
        "quantized already.* module 'quant' .*torch.ao.nn.quantized",
    ),
    "dynamically quantized": (
        lambda: without_warnings(torch.ao.quantization.quantize_dynamic, nn.Sequential(Two())),
        "module '0.linear' .*quantized.dynamic",
    ),
    "quantized by Octavo": (
        lambda: octavo.quantize(nn.Linear(4, 2), torch.rand(8, 4), config="fast"),
        "it is .*QuantizedModel. Quantize the float model",
    ),
    "lazy": (
        lambda: nn.Sequential(without_warnings(nn.LazyConv2d, 4, 3)),
        "'0.weight' of a lazy module has no shape yet: call the model once",
    ),
    "meta": (lambda: cnn().to("meta"), r"on the meta device .* '0.weight': .*to_empty"),
}

# (model, data, what to do about it); each is a call that the float model itself refuses
CALLS = {
    "labels first": (
        cnn,
        lambda: [(torch.arange(4), images())],
        r"int64 of shape \(4,\).* let the inputs come first, \(image, label\)",
    ),
    "uint8": (cnn, pixels, r"pixels of 0 to 255: .* as in training, input.float\(\) / 255"),
    "uint8, channels last": (
        cnn,
        lambda: pixels(4, 8, 8, 3),
        r"0 to 255: .* channels last: input.movedim\(-1, 1\)",
    ),
    "channels last": (
        cnn,
        lambda: images(4, 8, 8, 3),
        r"expected input\[4, 8, 8, 3\] .* channels last: input.movedim\(-1, 1\)",
    ),
    "double": (
        cnn,
        lambda: images().double(),
        r"float64, the weights are torch.float32.*float\(\)",
    ),
    "half": (cnn, lambda: images().half(), r"float16, the weights are torch.float32.*float\(\)"),
    "grey for RGB": (
        cnn,
        lambda: images(4, 1, 8, 8),
        "Conv2d '0' takes .* C=3: convert the images",
    ),
    "RGBA": (cnn, lambda: images(4, 4, 8, 8), "Conv2d '0' takes .* C=3: convert the images"),
    "RGB for grey": (lambda: cnn(1), images, "Conv2d '0' takes .* C=1: convert the images"),
    "one image": (cnn, lambda: images(3, 8, 8), r"without .* the batch: input.unsqueeze\(0\)"),
    "images of digits": (
        lambda: cnn(1),
        lambda: pixels(16, 8, 8),
        r"0 to 255: .* no dimension of channels: input.unsqueeze\(1\)",
    ),
    "no collate": (
        cnn,
        lambda: [[(images(3, 8, 8), 1), (images(3, 8, 8), 0)]],
        "'input' is a tuple: stack its samples to one tensor, as a DataLoader does",
    ),
    "missing argument": (
        Two,
        lambda: torch.rand(2, 4),
        r"forward\(x, mask\) cannot .*missing a required argument: 'mask'",
    ),
    "features": (Two, lambda: (images(2, 5), images(2, 4)), "Linear 'linear' takes 4 features"),
    "token ids": (
        lambda: nn.Sequential(nn.Embedding(10, 4), nn.Linear(4, 2)),
        lambda: torch.tensor([[3, 10]]),
        "The ids go from 3 to 10, and Embedding '0' has 10 rows",
    ),
}

# (model, data, settings, error, message); each is refused already before the model is called
OTHERS = {
    "no data": (cnn, lambda: None, {}, DataError, "calibration data is None; give a tensor"),
    "empty": (cnn, list, {}, DataError, "calibration data is empty"),
    "path": (cnn, lambda: "images/", {}, DataError, "calibration data is 'images/'"),
    "model as data": (cnn, cnn, {}, DataError, "calibration data is a model, Sequential"),
    "NaN": (cnn, lambda: images() / 0 * 0, {}, DataError, "batch 0 .* NaN or infinity"),
    "dataset": (
        cnn,
        lambda: TensorDataset(images(), torch.arange(4)),
        {},
        DataError,
        "a TensorDataset, a dataset of single samples.*: wrap it in a DataLoader",
    ),
    "dataset of pictures": (
        cnn,
        lambda: Samples(lambda i: (picture(), i)),
        {},
        DataError,
        r"transform=torchvision.transforms.ToTensor\(\), and wrap it in a DataLoader",
    ),
    "loader of pictures": (
        cnn,
        lambda: DataLoader(Samples(lambda i: (picture(), i))),
        {},
        DataError,
        r"cannot make batch 0: TypeError: .* transform=torchvision.transforms.ToTensor\(\)",
    ),
    "loader of sizes": (
        cnn,
        lambda: DataLoader(Samples(lambda i: images(3, 8, 8 + i)), batch_size=2),
        {},
        DataError,
        "equal size.*: bring the samples to one size, or use batch_size=1",
    ),
    "pictures": (
        cnn,
        lambda: [picture()],
        {},
        DataError,
        "batch 0 .* is a PIL image: make a tensor",
    ),
    "texts": (
        cnn,
        lambda: ["a cat"],
        {},
        DataError,
        "'a cat': load and preprocess .*, or tokenize",
    ),
    "lists": (cnn, lambda: [[1.0, 2.0]], {}, DataError, "holds no tensor, but float: make tensors"),
    "keyword": (
        cnn,
        lambda: {"image": images()},
        {},
        DataError,
        "forward takes none of these, but",
    ),
    "dict as an argument": (
        OfDict,
        lambda: {"x": torch.rand(2, 4)},
        {},
        DataError,
        r"\(batch,\) if forward takes the dict itself",
    ),
    "preset": (cnn, images, {"config": "fastest"}, ConfigError, "'fast', 'balanced', 'best'"),
    "settings": (cnn, images, {"config": {"observer": "mse"}}, ConfigError, "an octavo.Config"),
    "target": (
        cnn,
        images,
        {"target_sqnr": "30"},
        ConfigError,
        "target_sqnr='30': a finite number",
    ),
    "no function": (cnn, images, {"evaluate": 0.9}, ConfigError, "evaluate is a float: give a"),
    "no return": (
        cnn,
        images,
        {"evaluate": lambda m: None},
        ConfigError,
        "evaluate must return one number, higher is better; it returned None",
    ),
    "two returned": (
        cnn,
        images,
        {"evaluate": lambda m: (1, 2)},
        ConfigError,
        r"returned \(1, 2\)",
    ),
}


def is_one_message(error):
    """No line of a traceback, and few lines."""
    assert isinstance(error, OctavoError)
    assert "Traceback" not in str(error)
    assert len(str(error).splitlines()) == 1
    return True


@pytest.mark.parametrize(
    ("model", "data", "settings", "error", "message"), OTHERS.values(), ids=OTHERS
)
def test_what_quantize_refuses_before_it_calls_the_model(model, data, settings, error, message):
    with pytest.raises(error, match=message) as caught:
        octavo.quantize(model(), data(), **settings)
    assert is_one_message(caught.value)


@pytest.mark.parametrize(("model", "message"), MODELS.values(), ids=MODELS)
def test_models_that_are_none(model, message):
    with pytest.raises(OctavoError, match=message) as caught:
        check_model(model())
    assert is_one_message(caught.value)


def test_float_models_of_any_origin_are_models():
    ao = torch.ao.quantization
    for made in (
        cnn,
        lambda: torch.fx.symbolic_trace(cnn()),
        lambda: nn.Sequential(torch.jit.trace(cnn(), images())),  # PyTorch can export these
        lambda: ao.fuse_modules(cnn(), [["0", "1", "2"]]),
        lambda: ao.QuantWrapper(cnn()),  # its stubs do nothing
        lambda: torch.compile(cnn()),
        nn.ReLU,
    ):
        check_model(without_warnings(made))


@pytest.mark.parametrize(("model", "data", "message"), CALLS.values(), ids=CALLS)
def test_why_the_model_itself_does_not_take_a_batch(model, data, message):
    net = model().eval()
    call = next(calls(data(), net))
    with pytest.raises(Exception) as caught:  # whatever PyTorch raises
        net(*call[0], **call[1])
    text = explain_call(net, call, caught.value)
    assert text.startswith("the model itself does not take the first batch of the calibration data")
    assert one_line(caught.value) in text
    with pytest.raises(DataError, match=message) as explained:
        raise DataError(text)
    assert is_one_message(explained.value)


def test_where_no_hint_is_known_the_line_is_named():
    class Odd(nn.Module):
        def forward(self, x):
            assert x.shape[0] == 5, "five are needed"
            return x

    with pytest.raises(AssertionError) as caught:
        Odd()(images())
    text = explain_call(Odd(), ((images(),), {}), caught.value)
    for part in ("AssertionError: five are needed", "test_mistakes.py", "assert x.shape[0] == 5"):
        assert part in text


def test_an_error_without_words_is_named_by_its_kind():
    assert one_line(AssertionError()) == "AssertionError"
    assert one_line(ValueError("\n  first:\nsecond")) == "ValueError: first"


def test_what_looks_like_a_mistake_and_is_none():
    net, x = nn.Linear(4, 2), torch.rand(8, 4)
    for data in (
        [(x, torch.arange(8))],
        {"input": x, "labels": torch.arange(8)},
        [UserDict(input=x, image_id=[1])],
        DataLoader([{"input": row, "label": 1} for row in x], batch_size=4),
        x.double().numpy(),
        [np.flip(x.numpy())],
    ):
        q = octavo.quantize(net, data, config="fast", target_sqnr=np.float32(20))
        assert octavo.sqnr(net(x), q(x)) > 20


REFUSED = {name: (model, images, message) for name, (model, message) in MODELS.items()} | CALLS


@pytest.mark.parametrize(("model", "data", "message"), REFUSED.values(), ids=REFUSED)
def test_quantize_says_why_it_takes_neither_model_nor_batch(model, data, message):
    with pytest.raises(OctavoError, match=message) as caught:
        octavo.quantize(model(), data(), config="fast")
    assert is_one_message(caught.value)


def test_settings_may_be_given_by_position():
    x = torch.rand(8, 4)
    assert octavo.quantize(nn.Linear(4, 2), x, "fast").config == octavo.config.PRESETS["fast"]
    assert octavo.quantize(nn.Linear(4, 2), x, Config(min_sqnr=3)).config.min_sqnr == 3
    with pytest.raises(ConfigError, match=r"config=30: pass an octavo.Config"):
        octavo.quantize(nn.Linear(4, 2), x, 30)


@pytest.mark.parametrize("engine", [None, "reference", "torch_int8", "openvino", "onnxruntime"])
def test_what_is_given_to_a_quantized_model(engine):
    net, x = nn.Linear(4, 2), torch.rand(8, 4)
    q = octavo.quantize(net, x, config="fast")
    fast = q if engine is None else q.compile(engine)
    assert fast.eval() is fast
    fast.train(fast.training)
    assert next(fast.parameters(), x).device == x.device
    assert not fast.training
    for array in (x.numpy(), x.double().numpy(), x.numpy()[:, ::-1].copy()[:, ::-1]):
        torch.testing.assert_close(fast(array), fast(x))
    with pytest.raises(CaptureError, match="a PIL image: make a tensor of it"):
        fast(picture())
