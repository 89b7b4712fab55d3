"""Models and data by name, for the command line."""

from __future__ import annotations

import importlib
import importlib.util
import itertools
import math
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from ..calibrate.hints import signature_of
from ..calibrate.mistakes import check_model
from ..capture.arrays import as_tensor
from ..errors import DataError, OctavoError

IMAGES = {".jpg", ".jpeg", ".png", ".bmp", ".webp", ".ppm", ".tif", ".tiff"}
ARRAYS = {".npy", ".npz", ".safetensors"}


class SourceError(OctavoError):
    """A model or weights file named on the command line cannot be loaded."""


def load_model(spec: str, weights: Path | None = None) -> nn.Module:
    """The model `spec` names, in eval mode, with `weights` loaded into it.

    spec: "package.module:callable", "file.py:callable", "torchvision:NAME" or "timm:NAME"; the
        callable takes no arguments and returns the model, or is the model.
    weights: .safetensors, or a .pth / .pt state dict (read with weights_only=True).
    """
    source, _, name = spec.rpartition(":")
    if not source or not name:
        raise SourceError(
            f"MODEL is {spec!r}: write package.module:callable, file.py:callable, "
            "torchvision:NAME or timm:NAME"
        )
    torch.manual_seed(0)  # random weights are at least the same each time
    try:
        model = _make(source, name)
    except OctavoError:
        raise
    except Exception as e:
        raise SourceError(f"cannot make model {spec!r}: {type(e).__name__}: {e}") from e
    if not isinstance(model, nn.Module):
        raise SourceError(f"{spec!r} gave a {type(model).__name__}, not an nn.Module")
    check_model(model)
    if weights is not None:
        _load_weights(model, weights)
    return model.eval()


def _make(source: str, name: str) -> Any:
    if source == "torchvision":
        return _import("torchvision").models.get_model(name, weights=None)
    if source == "timm":
        return _import("timm").create_model(name, pretrained=False)
    module = _load_file(Path(source)) if source.endswith(".py") else _import(source)
    if not hasattr(module, name):
        raise SourceError(f"{source} has no {name!r}")
    made = getattr(module, name)
    return made if isinstance(made, nn.Module) else made()


def _import(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as e:
        raise SourceError(f"cannot import {name!r}: {e}. Is it installed?") from e


def _load_file(path: Path) -> Any:
    if not path.is_file():
        raise SourceError(f"there is no file {path}")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.path.insert(0, str(path.parent))  # the file may import its neighbours
    try:
        spec.loader.exec_module(module)
    finally:
        sys.path.remove(str(path.parent))
    return module


def _load_weights(model: nn.Module, path: Path) -> None:
    try:
        if path.suffix == ".safetensors":
            state = load_file(path)
        else:
            state = torch.load(path, map_location="cpu", weights_only=True)
            state = state.get("state_dict", state.get("model", state))
        model.load_state_dict(state)
    except Exception as e:
        reason = " ".join(str(e).split())[:300]
        raise SourceError(f"cannot load weights {path}: {reason}") from e


@dataclass(frozen=True)
class ImageOptions:
    """How images become tensors: shorter side to `resize`, centre crop `size`, normalise."""

    size: int = 224
    resize: int | None = None
    mean: tuple[float, ...] = (0.485, 0.456, 0.406)
    std: tuple[float, ...] = (0.229, 0.224, 0.225)

    @property
    def shorter_side(self) -> int:
        """`resize`, by default the usual size / 0.875."""
        return self.resize or round(self.size / 0.875)


def load_data(
    path: Path,
    model: nn.Module,
    batch: int,
    limit: int | None,
    images: ImageOptions,
    share: tuple[int, int] = (0, 1),
) -> Iterator[Any]:
    """Batches of model inputs from a folder of images, or from array files in it (or one file).

    .npy holds samples along its first axis; .npz and .safetensors hold one such array, or
    several named like the model's arguments. Raises DataError if there is nothing to read.

    limit: at most this many samples, rounded up to whole batches.
    share: (r, n) for batches r, r + n, r + 2 n, ... only.
    """
    files = sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]
    pictures = [p for p in files if p.suffix.lower() in IMAGES]
    arrays = [p for p in files if p.suffix.lower() in ARRAYS]
    if not path.exists() or not (pictures or arrays):
        kinds = ", ".join(sorted(IMAGES | ARRAYS))
        raise DataError(f"{path} holds no data: a folder or file of {kinds} is needed")
    if arrays and pictures:
        raise DataError(f"{path} holds both images and arrays: keep one kind in it")
    first, step = share
    last = None if limit is None else math.ceil(limit / batch)
    if arrays:
        yield from itertools.islice(_array_batches(arrays, model, batch), first, last, step)
        return
    for i in range(0, len(pictures), batch)[first:last:step]:
        yield torch.stack([read_image(f, images) for f in pictures[i : i + batch]])


def read_image(path: Path, options: ImageOptions) -> Tensor:
    """One image as a float tensor (channels, size, size); needs Pillow."""
    try:
        from PIL import Image
    except ImportError as e:
        raise DataError("reading images needs Pillow: pip install 'octavo[images]'") from e
    channels = len(options.mean)
    try:
        with Image.open(path) as opened:
            image = opened.convert("L" if channels == 1 else "RGB")
    except OSError as e:
        raise DataError(f"cannot read image {path}: {e}") from e
    scale = options.shorter_side / min(image.size)
    image = image.resize([max(options.size, round(s * scale)) for s in image.size], 3)  # bicubic
    left, top = ((s - options.size) // 2 for s in image.size)
    image = image.crop((left, top, left + options.size, top + options.size))
    pixels = np.asarray(image, np.float32).reshape(options.size, options.size, channels) / 255
    mean, std = (np.array(v, np.float32) for v in (options.mean, options.std))
    return torch.from_numpy((pixels - mean) / std).permute(2, 0, 1).contiguous()


def _array_batches(files: list[Path], model: nn.Module, batch: int) -> Iterator[Any]:
    names = signature_of(model).parameters.keys()
    for file in files:
        arrays = _read_arrays(file)
        if len({len(a) for a in arrays.values()}) > 1:
            sizes = ", ".join(f"{name} {len(a)}" for name, a in arrays.items())
            raise DataError(f"{file} holds arrays of different numbers of samples: {sizes}")
        if len(arrays) == 1:
            yield from next(iter(arrays.values())).split(batch)
        elif arrays.keys() & names:  # others, such as labels, are dropped with the calls made
            for parts in zip(*(a.split(batch) for a in arrays.values()), strict=True):
                yield dict(zip(arrays, parts, strict=True))
        else:
            raise DataError(
                f"{file} holds arrays {', '.join(sorted(arrays))}; one array is needed, or several "
                f"named like the model's arguments ({', '.join(names)})"
            )


def _read_arrays(file: Path) -> dict[str, Tensor]:
    """By name, with samples along the first axis; numpy's default, float64, becomes float32."""
    try:
        if file.suffix.lower() == ".safetensors":
            arrays = load_file(file)
        else:
            loaded = np.load(file, allow_pickle=False)
            found = {"": loaded} if file.suffix.lower() == ".npy" else dict(loaded)
            arrays = {name: as_tensor(a, torch.float32) for name, a in found.items()}
    except Exception as e:
        raise DataError(f"cannot read {file}: {e}") from e
    for name, a in arrays.items():
        if not isinstance(a, Tensor) or not a.dim():
            kind = "one number" if isinstance(a, Tensor) else f"dtype {a.dtype}"
            raise DataError(f"{file} holds an array {name!r} of {kind}: no samples to calibrate on")
    return arrays
