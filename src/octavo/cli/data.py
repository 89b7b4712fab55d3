"""Calibration data from files, for the command line: images, arrays and lines of text."""

from __future__ import annotations

import dataclasses
import itertools
import math
import warnings
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from ..calibrate.hints import signature_of
from ..capture.arrays import as_tensor
from ..capture.images import Image
from ..capture.signature import Signature
from ..errors import DataError

IMAGES = {".jpg", ".jpeg", ".png", ".bmp", ".webp", ".ppm", ".tif", ".tiff"}
ARRAYS = {".npy", ".npz", ".safetensors"}
TEXTS = {".txt"}
LONGEST = 512  # tokens, of a tokenizer that knows no limit


@dataclass(frozen=True)
class ImageOptions:
    """How images become tensors: shorter side to `resize`, centre crop `size`, normalise.

    processor: or as this image processor of Hugging Face does, by name or folder; for lines of
        text, the tokenizer. By default that of a model of transformers.
    """

    size: int = 224
    resize: int | None = None
    mean: tuple[float, ...] = (0.485, 0.456, 0.406)
    std: tuple[float, ...] = (0.229, 0.224, 0.225)
    processor: str | None = None

    @property
    def shorter_side(self) -> int:
        """`resize`, by default the usual size / 0.875."""
        return self.resize or round(self.size / 0.875)

    def for_model(self, signature: Signature) -> ImageOptions:
        """With the size that a quantized model takes, if that is fixed and no other was given.

        A model that takes images as bytes also says how they are normalized.
        """
        options = self
        for _, image in signature.images:
            options = dataclasses.replace(options, mean=tuple(image.mean), std=tuple(image.std))
        sizes = {shape[2] for _, shape in signature.inputs if len(shape) == 4} - {None}
        fixed = sizes.pop() if len(sizes) == 1 else None
        if fixed is None or self.size != ImageOptions.size:
            return options
        return dataclasses.replace(options, size=fixed)


class EnlargedWarning(UserWarning):
    """Images are made larger than they are."""


def load_data(
    path: Path,
    model: nn.Module,
    batch: int,
    limit: int | None,
    images: ImageOptions,
    share: tuple[int, int] = (0, 1),
) -> Iterator[Any]:
    """Batches of model inputs from a folder of images, arrays or texts (or one such file).

    .npy holds samples along its first axis; .npz and .safetensors hold one such array, or
    several named like the model's arguments; .txt holds a text in each line. Raises DataError if
    there is nothing to read.

    limit: at most this many samples, rounded up to whole batches.
    share: (r, n) for batches r, r + n, r + 2 n, ... only.
    """
    files = sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]
    found = {kind: [f for f in files if _kind(f) == kind] for kind in ("images", "arrays", "texts")}
    kinds = [kind for kind, of_kind in found.items() if of_kind]
    if not path.exists():
        raise DataError(f"there is no file or folder {path}")
    if not kinds:
        known = ", ".join(sorted(IMAGES | ARRAYS | TEXTS))
        raise DataError(f"{path} holds no data: a folder or file of {known} is needed")
    if len(kinds) > 1:
        raise DataError(f"{path} holds both {' and '.join(kinds)}: keep one kind in it")
    first, step = share
    last = None if limit is None else math.ceil(limit / batch)
    if found["images"]:
        starts = range(0, len(found["images"]), batch)[first:last:step]  # others are not read
        yield from _image_batches(found["images"], starts, model, batch, images)
    else:
        arrays, texts = found["arrays"], found["texts"]
        batches = (
            _array_batches(arrays, model, batch)
            if arrays
            else _text_batches(texts, model, batch, images)
        )
        yield from itertools.islice(batches, first, last, step)


def _kind(file: Path) -> str:
    suffixes = {"images": IMAGES, "arrays": ARRAYS, "texts": TEXTS}
    return next((kind for kind, known in suffixes.items() if file.suffix.lower() in known), "")


# ---- images


def _image_batches(
    files: list[Path], starts: Iterable[int], model: nn.Module, batch: int, options: ImageOptions
) -> Iterator[Any]:
    process = _processor("AutoImageProcessor", model, options)
    if process is None:
        _warn_if_enlarged(files[0], options)
    for i in starts:
        chosen = files[i : i + batch]
        if process is None:
            yield torch.stack([read_image(f, options) for f in chosen])
        else:
            images = [_opened(f, "RGB") for f in chosen]
            yield _taken(process(images=images, return_tensors="pt"), model)


def _warn_if_enlarged(file: Path, options: ImageOptions) -> None:
    width, height = _opened(file, "RGB").size
    if min(width, height) < options.size:
        side = options.size
        warnings.warn(
            f"images are enlarged, {file.name} from {width} x {height} to {side} x {side} pixels: "
            "give --size unless the model was trained so (and --mean and --std, which are "
            "ImageNet's)",
            EnlargedWarning,
            stacklevel=2,
        )


def read_image(path: Path, options: ImageOptions) -> Tensor:
    """One image as a float tensor (channels, size, size); needs Pillow."""
    channels = len(options.mean)
    image = _opened(path, "L" if channels == 1 else "RGB")
    scale = options.shorter_side / min(image.size)
    image = image.resize([max(options.size, round(s * scale)) for s in image.size], 3)  # bicubic
    left, top = ((s - options.size) // 2 for s in image.size)
    image = image.crop((left, top, left + options.size, top + options.size))
    pixels = np.asarray(image, np.float32).reshape(options.size, options.size, channels) / 255
    mean, std = (np.array(v, np.float32) for v in (options.mean, options.std))
    return torch.from_numpy((pixels - mean) / std).permute(2, 0, 1).contiguous()


def _opened(path: Path, mode: str) -> Any:
    try:
        from PIL import Image as Pictures
    except ImportError as e:
        raise DataError("reading images needs Pillow: pip install pillow") from e
    try:
        with Pictures.open(path) as opened:
            return opened.convert(mode)
    except OSError as e:
        raise DataError(f"cannot read image {path}: {e}") from e


def as_bytes(layout: str, model: nn.Module, options: ImageOptions) -> Image:
    """How images as bytes are normalized: as the options say, or the model's own processor."""
    process = _processor("AutoImageProcessor", model, options)
    mean = getattr(process, "image_mean", options.mean)
    return Image(mean, getattr(process, "image_std", options.std), layout)


# ---- Hugging Face's processors


def _processor(kind: str, model: nn.Module, options: ImageOptions) -> Any:
    """The processor of that kind: the one asked for, or the model's own, if it has one."""
    name = options.processor or getattr(model, "name_or_path", "")
    if not name:
        return None
    try:
        import transformers

        return getattr(transformers, kind).from_pretrained(name)
    except Exception as e:
        if options.processor is None:
            return None
        reason = " ".join(str(e).split())[:300]
        raise DataError(f"cannot load the processor {name!r}: {reason}") from e


def _taken(values: Any, model: nn.Module) -> dict[str, Tensor]:
    """What the model takes, of what a processor gives."""
    names = signature_of(model).parameters.keys()
    return {name: value for name, value in values.items() if name in names}


def _text_batches(
    files: list[Path], model: nn.Module, batch: int, options: ImageOptions
) -> Iterator[Any]:
    """Lines of text, each batch padded to its longest."""
    tokenize = _processor("AutoTokenizer", model, options)
    if tokenize is None:
        raise DataError(
            f"{files[0]} holds text: say with --processor which tokenizer of Hugging Face makes "
            "inputs of it (a name or a folder)"
        )
    tokenize.pad_token = tokenize.pad_token or tokenize.eos_token
    longest = min(tokenize.model_max_length, _positions(model))
    for lines in _chunks(_lines(files), batch):
        values = tokenize(
            lines, padding=True, truncation=True, max_length=longest, return_tensors="pt"
        )
        yield _taken(values, model)


def _positions(model: nn.Module) -> int:
    return int(getattr(getattr(model, "config", None), "max_position_embeddings", LONGEST))


def _lines(files: list[Path]) -> Iterator[str]:
    for file in files:
        try:
            text = file.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as e:
            raise DataError(f"cannot read {file}: {e}") from e
        yield from filter(None, map(str.strip, text.splitlines()))


def _chunks(items: Iterator[str], size: int) -> Iterator[Sequence[str]]:
    while chunk := list(itertools.islice(items, size)):
        yield chunk


# ---- arrays


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
