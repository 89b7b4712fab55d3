import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

import octavo
from octavo import DataError
from octavo.calibrate.data import calls
from octavo.cli.data import EnlargedWarning, ImageOptions, load_data, read_image
from octavo.cli.models import load_model

NET = nn.Linear(4, 2)
IMAGES = ImageOptions(size=8, resize=10)


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


def test_the_size_of_images_is_that_of_the_quantized_model():
    q = octavo.quantize(nn.Conv2d(3, 4, 3), torch.rand(8, 3, 12, 12), config="fast")
    assert ImageOptions().for_model(q.signature).size == 12
    assert IMAGES.for_model(q.signature) == IMAGES  # asked for


def test_each_process_reads_its_share_of_the_images_alone(tmp_path):
    image = pytest.importorskip("PIL.Image")
    for i in range(4):
        image.new("RGB", (8, 8), (50 * i, 0, 0)).save(tmp_path / f"{i}.png")
    (tmp_path / "1.png").write_bytes(b"no image")
    options = ImageOptions(size=8, resize=8, mean=(0, 0, 0), std=(1, 1, 1))
    found = list(load_data(tmp_path, NET, 1, None, options, share=(0, 2)))
    assert [round(255 * x[0, 0, 0, 0].item()) for x in found] == [0, 100]


def test_enlarged_images_are_a_warning(tmp_path):
    image = pytest.importorskip("PIL.Image")
    image.new("RGB", (32, 40)).save(tmp_path / "a.png")
    with pytest.warns(EnlargedWarning, match="from 32 x 40 to 224 x 224 pixels: give --size"):
        next(load_data(tmp_path, NET, 1, None, ImageOptions()))


def test_folders_without_data(tmp_path):
    with pytest.raises(DataError, match="holds no data"):
        batches(tmp_path)
    with pytest.raises(DataError, match="there is no file or folder"):
        batches(tmp_path / "none")
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


# ---- Hugging Face's processors


def test_lines_of_text_become_padded_batches(text_model, tmp_path):
    (tmp_path / "texts.txt").write_text("the film was good\n\nbad\nvery very dull\n")
    model = load_model(f"transformers:{text_model}")
    first, last = batches(tmp_path / "texts.txt", model)
    assert first.keys() == {"input_ids", "attention_mask", "token_type_ids"}
    assert first["input_ids"].tolist() == [[2, 5, 6, 7, 9, 3], [2, 10, 3, 0, 0, 0]]
    assert last["input_ids"].tolist() == [[2, 8, 8, 11, 3]]
    assert [len(b["input_ids"]) for b in batches(tmp_path, model, limit=1)] == [2]


def test_texts_are_no_longer_than_the_model_takes(text_model, tmp_path):
    (tmp_path / "texts.txt").write_text("very " * 100)
    (batch,) = batches(tmp_path, load_model(f"transformers:{text_model}"))
    assert batch["input_ids"].shape == (1, 16)


def test_a_tokenizer_by_its_folder(text_model, tmp_path):
    (tmp_path / "texts.txt").write_text("good")

    class Words(nn.Module):
        def forward(self, input_ids):
            return input_ids

    options = ImageOptions(processor=str(text_model))
    (batch,) = load_data(tmp_path, Words(), 1, None, options)
    assert {k: v.tolist() for k, v in batch.items()} == {"input_ids": [[2, 9, 3]]}


def test_images_as_the_models_processor_prepares_them(image_model, tmp_path):
    from PIL import Image

    Image.new("RGB", (40, 60), (255, 0, 0)).save(tmp_path / "red.png")
    (batch,) = batches(tmp_path, load_model(f"transformers:{image_model}"))
    (pixels,) = batch["pixel_values"]
    assert pixels.shape == (3, 24, 24)
    torch.testing.assert_close(pixels[:, 0, 0], torch.tensor([1.0, -1.0, -1.0]))


def test_text_without_a_tokenizer(tmp_path):
    (tmp_path / "texts.txt").write_text("good")
    with pytest.raises(DataError, match="--processor"):
        batches(tmp_path)


def test_a_processor_that_is_not_there(tmp_path):
    pytest.importorskip("transformers")
    (tmp_path / "texts.txt").write_text("good")
    with pytest.raises(DataError, match="cannot load the processor"):
        list(load_data(tmp_path, NET, 1, None, ImageOptions(processor=str(tmp_path))))
