import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from octavo import CaptureError, DataError
from octavo.calibrate.data import calls
from octavo.cli.loaders import ImageOptions, SourceError, load_data, load_model, read_image

NET = nn.Linear(4, 2)
IMAGES = ImageOptions(size=8, resize=10)


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


def batches(path, model=None, batch=2, limit=None):
    return list(load_data(path, model or NET, batch, limit, IMAGES))


def test_arrays(tmp_path):
    a = np.random.rand(5, 4).astype(np.float32)
    np.save(tmp_path / "a.npy", a)
    np.savez(tmp_path / "b.npz", x=a)
    save_file({"x": torch.from_numpy(a)}, tmp_path / "c.safetensors")
    found = batches(tmp_path)
    assert [len(b) for b in found] == [2, 2, 1] * 3
    torch.testing.assert_close(torch.cat(found[:3]), torch.from_numpy(a))
    assert [len(b) for b in batches(tmp_path / "a.npy", limit=3)] == [2, 2]


def test_arrays_named_like_the_arguments(tmp_path):
    np.savez(tmp_path / "a.npz", x1=np.zeros((3, 4)), x2=np.ones((3, 4)))
    net = nn.CosineSimilarity()
    (first, _) = batches(tmp_path, net)
    assert {k: len(v) for k, v in first.items()} == {"x1": 2, "x2": 2}
    with pytest.raises(DataError, match=r"x1, x2.*\(input\)"):
        batches(tmp_path)


def test_items_that_the_model_does_not_take_are_not_in_its_calls(tmp_path):
    np.savez(tmp_path / "a.npz", input=np.random.rand(3, 4), labels=np.arange(3))
    loaded = batches(tmp_path)
    assert [{k: tuple(v.shape) for k, v in kwargs.items()} for _, kwargs in calls(loaded, NET)] == [
        {"input": (2, 4)},
        {"input": (1, 4)},
    ]


def test_the_default_type_of_numpy_becomes_that_of_pytorch(tmp_path):
    np.save(tmp_path / "a.npy", np.random.rand(3, 4))
    (tmp_path / "a.npy").rename(tmp_path / "A.NPY")
    assert [b.dtype for b in batches(tmp_path)] == [torch.float32] * 2


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"input": np.zeros((3, 4)), "other": np.zeros((2, 4))}, "input 3, other 2"),
        ({"input": np.array(3.0)}, "'input' of one number: no samples"),
        ({"input": np.array(["a.jpg"])}, "'input' of dtype <U5: no samples"),
    ],
)
def test_arrays_that_are_no_samples(tmp_path, arrays, message):
    np.savez(tmp_path / "a.npz", **arrays)
    with pytest.raises(DataError, match=message):
        batches(tmp_path)


def test_a_model_that_cannot_be_quantized(net_file):
    net_file.write_text("import torch\nmake = torch.nn.Linear(2, 2, device='meta')\n")
    with pytest.raises(CaptureError, match="on the meta device"):
        load_model(f"{net_file}:make")


def test_images(tmp_path):
    image = pytest.importorskip("PIL.Image")
    pixels = np.zeros((20, 40, 3), np.uint8)
    pixels[:, :, 0] = 255
    image.fromarray(pixels).save(tmp_path / "red.png")
    (batch,) = batches(tmp_path)
    mean, std = torch.tensor(IMAGES.mean), torch.tensor(IMAGES.std)
    expected = ((torch.tensor([1.0, 0, 0]) - mean) / std).view(1, 3, 1, 1).expand(1, 3, 8, 8)
    torch.testing.assert_close(batch, expected)
    grey = ImageOptions(size=8, mean=(0.5,), std=(0.5,))
    assert read_image(tmp_path / "red.png", grey).shape == (1, 8, 8)


def test_an_image_against_torchvision(tmp_path):
    image = pytest.importorskip("PIL.Image")
    transforms = pytest.importorskip("torchvision.transforms")
    image.fromarray(np.random.randint(0, 255, (31, 57, 3), np.uint8)).save(tmp_path / "a.png")
    resize = transforms.Resize(10, interpolation=transforms.InterpolationMode.BICUBIC)
    steps = [resize, transforms.CenterCrop(8), transforms.ToTensor()]
    steps.append(transforms.Normalize(IMAGES.mean, IMAGES.std))
    with image.open(tmp_path / "a.png") as opened:
        expected = transforms.Compose(steps)(opened)
    torch.testing.assert_close(read_image(tmp_path / "a.png", IMAGES), expected, atol=0.2, rtol=0)


def test_folders_without_data(tmp_path):
    for path in (tmp_path, tmp_path / "none"):
        with pytest.raises(DataError, match="holds no data"):
            batches(path)
    (tmp_path / "a.npy").write_bytes(b"no array")
    with pytest.raises(DataError, match="cannot read"):
        batches(tmp_path)
    (tmp_path / "b.png").write_bytes(b"no image")
    with pytest.raises(DataError, match="both images and arrays"):
        batches(tmp_path)
    (tmp_path / "a.npy").unlink()
    with pytest.raises(DataError, match="cannot read image"):
        batches(tmp_path)


def test_pickled_arrays_are_not_run(tmp_path):
    np.save(tmp_path / "a.npy", np.array([object()], dtype=object), allow_pickle=True)
    with pytest.raises(DataError, match="cannot read"):
        batches(tmp_path)


@pytest.mark.parametrize("limit", [None, 10, 64])
def test_shares_together_are_the_whole(limit, tmp_path):
    np.save(tmp_path / "a.npy", np.arange(22, dtype=np.float32).reshape(22, 1))
    arguments = (tmp_path, nn.Linear(1, 1), 4, limit, ImageOptions())
    whole = list(load_data(*arguments))
    shares = [list(load_data(*arguments, (r, 3))) for r in range(3)]
    again = [shares[i % 3][i // 3] for i in range(len(whole))]
    assert sum(map(len, shares)) == len(whole) == (3 if limit == 10 else 6)
    assert all(torch.equal(a, b) for a, b in zip(again, whole, strict=True))
