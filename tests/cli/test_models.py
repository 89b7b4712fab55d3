import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from octavo import CaptureError
from octavo.cli.models import PRETRAINED, SourceError, load_model, note_on_weights


@pytest.fixture
def net_file(tmp_path):
    (tmp_path / "sizes.py").write_text("OUT = 3\n")
    (tmp_path / "net.py").write_text(
        "import torch\nfrom sizes import OUT\n"
        "def make():\n    return torch.nn.Linear(4, OUT)\n"
        "ready = torch.nn.Linear(2, 2)\n"
        "def broken():\n    raise ValueError('no disk')\n"
        "number = lambda: 3\n"
    )
    return tmp_path / "net.py"


def test_a_file_and_a_callable(net_file):
    assert load_model(f"{net_file}:make").weight.shape == (3, 4)
    assert load_model(f"{net_file}:ready").weight.shape == (2, 2)


def test_a_package_and_torchvision():
    assert isinstance(load_model("torch.nn:Identity"), nn.Identity)
    pytest.importorskip("torchvision")
    net = load_model("torchvision:squeezenet1_1")
    assert not net.training
    again = load_model("torchvision:squeezenet1_1")
    assert torch.equal(net.features[0].weight, again.features[0].weight)


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_weights(net_file, tmp_path, suffix):
    state = {"weight": torch.full((3, 4), 5.0), "bias": torch.zeros(3)}
    path = tmp_path / f"w{suffix}"
    if suffix == ".pth":
        torch.save({"state_dict": state}, path)
    else:
        save_file(state, path)
    assert load_model(f"{net_file}:make", path).weight.eq(5).all()


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("resnet50", "torchvision:NAME"),
        ("none.py:make", "no file none.py"),
        ("no_such_package:make", "Is it installed"),
        ("torch.nn:NoSuch", "has no 'NoSuch'"),
        ("torch.nn:Linear", "TypeError"),
        ("{file}:broken", "ValueError: no disk"),
        ("{file}:number", "gave a int"),
    ],
)
def test_models_that_are_not_there(net_file, spec, message):
    with pytest.raises(SourceError, match=message):
        load_model(spec.format(file=net_file))


@pytest.mark.parametrize("content", [b"", b"nothing", "other"])
def test_weights_that_do_not_fit(net_file, tmp_path, content):
    path = tmp_path / "w.safetensors"
    if content == "other":
        save_file({"x": torch.zeros(2)}, path)
    else:
        path.write_bytes(content)
    with pytest.raises(SourceError, match="cannot load weights"):
        load_model(f"{net_file}:make", path)


def test_a_pickle_that_is_more_than_weights_is_not_run(net_file, tmp_path):
    class Evil:
        def __reduce__(self):
            return (open, (str(tmp_path / "pwned"), "w"))

    torch.save({"state_dict": Evil()}, tmp_path / "w.pth")
    with pytest.raises(SourceError, match="cannot load weights"):
        load_model(f"{net_file}:make", tmp_path / "w.pth")
    assert not (tmp_path / "pwned").exists()


def test_a_model_that_cannot_be_quantized(net_file):
    net_file.write_text("import torch\nmake = torch.nn.Linear(2, 2, device='meta')\n")
    with pytest.raises(CaptureError, match="on the meta device"):
        load_model(f"{net_file}:make")


# ---- transformers and timm


def test_a_folder_of_transformers_has_its_class_and_weights(text_model):
    from transformers import BertForSequenceClassification

    model = load_model(f"transformers:{text_model}")
    assert isinstance(model, BertForSequenceClassification) and not model.training
    saved = load_file(text_model / "model.safetensors")
    assert torch.equal(model.classifier.weight, saved["classifier.weight"])


def test_a_folder_of_timm_has_its_weights(tmp_path):
    timm = pytest.importorskip("timm")
    made = timm.create_model("test_vit", num_classes=5)
    timm.models.save_for_hf(made, tmp_path, model_config={"num_classes": 5})
    model = load_model(f"timm:{tmp_path}")
    assert torch.equal(model.head.weight, made.head.weight)
    assert note_on_weights(f"timm:{tmp_path}") == ""
    assert "random" in note_on_weights("timm:test_vit")
    assert "those that net.py gives it" in note_on_weights("net.py:make")


def test_pretrained_weights_are_those_of_the_library(monkeypatch):
    torchvision = pytest.importorskip("torchvision")
    asked = []

    def get_model(name, weights):
        asked.append((name, weights))
        return nn.Identity()

    monkeypatch.setattr(torchvision.models, "get_model", get_model)
    load_model("torchvision:resnet18", PRETRAINED)
    load_model("torchvision:resnet18")
    assert asked == [("resnet18", "DEFAULT"), ("resnet18", None)]


def test_a_model_of_ones_own_has_no_pretrained_weights():
    with pytest.raises(SourceError, match="for torchvision:NAME and timm:NAME"):
        load_model("torch.nn:Identity", PRETRAINED)


def test_a_folder_that_is_no_model_of_transformers(tmp_path):
    pytest.importorskip("transformers")
    with pytest.raises(SourceError, match="cannot make model"):
        load_model(f"transformers:{tmp_path}")
