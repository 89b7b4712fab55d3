"""Images as bytes: a model that takes uint8 images, as cameras and decoders give them.

The float model is wrapped before it is captured, so that normalization is a part of what is
quantized, checked, saved and exported; nothing after this stage knows of it.
"""

from __future__ import annotations

import copy
import inspect
import math
import numbers
import types
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import ConfigError, DataError

CHANNELS = {"NHWC": 3, "NCHW": 1}  # layout -> the dimension of channels
SLACK = 0.02  # of a byte; float32 images are no closer to bytes than that


@dataclass(frozen=True)
class Image:
    """How a model's input is made from uint8 images: `(image / 255 - mean) / std` in float32.

    mean, std: as in training, for pixels of 0 to 1, one number per channel in the order that the
        model was trained with (RGB, unless it was BGR).
    layout: of the images, "NHWC" (as decoders and cameras give them) or "NCHW".
    size: (height, width) to resize to, bilinear without antialiasing (OpenCV's INTER_LINEAR);
        None, the default, for images of the size that the model takes.

    Raises ConfigError for numbers that do not fit.

    >>> image = Image(mean=[0.5], std=[0.25], layout="NCHW")
    >>> image.normalize(torch.tensor([[[[0, 255]]]], dtype=torch.uint8)).tolist()
    [[[[-2.0, 2.0]]]]
    """

    mean: Sequence[float]
    std: Sequence[float]
    layout: str = "NHWC"
    size: Sequence[int] | None = None

    def __post_init__(self) -> None:
        mean, std = _numbers("mean", self.mean), _numbers("std", self.std)
        if len(mean) != len(std) or min(std) <= 0:
            raise ConfigError(
                f"mean={self.mean} and std={self.std}: one number per channel is needed in each, "
                "and std above 0"
            )
        if self.layout not in CHANNELS:
            raise ConfigError(f"layout={self.layout!r} is unknown: choose 'NHWC' or 'NCHW'")
        size = None if self.size is None else tuple(self.size)
        if size is not None and (len(size) != 2 or not all(type(s) is int and s > 0 for s in size)):
            raise ConfigError(f"size={self.size}: (height, width) in pixels is needed")
        for name, value in (("mean", mean), ("std", std), ("size", size)):
            object.__setattr__(self, name, value)

    def normalize(self, image: Tensor) -> Tensor:
        """The model's input, float32 (N, C, H, W); DataError for what is no batch of images."""
        self._check(image)
        scale = image.new_tensor([1 / (255 * s) for s in self.std], dtype=torch.float32)
        shifts = [-m / s for m, s in zip(self.mean, self.std, strict=True)]
        shift = image.new_tensor(shifts, dtype=torch.float32)
        if self.layout == "NHWC":
            n, height, width, channels = image.shape
            # a row at a time: a processor's vectors stay empty where a dimension has 3 numbers
            rows = image.reshape(n, height, width * channels).float()
            rows = rows * scale.repeat(width) + shift.repeat(width)
            x = rows.reshape(n, height, width, channels).permute(0, 3, 1, 2)
        else:
            x = image.float() * scale[:, None, None] + shift[:, None, None]
        if self.size is not None:
            x = F.interpolate(x, size=self.size, mode="bilinear", align_corners=False)
        return x

    def to_bytes(self, x: Tensor) -> Tensor:
        """The images that a normalized batch (N, C, H, W) was made from, rounded to bytes.

        Raises DataError where values lie outside 0 to 255, so that it was normalized otherwise.
        """
        if x.dim() != 4 or x.shape[1] != len(self.mean):
            raise DataError(
                f"a float tensor of shape {tuple(x.shape)} is no batch of normalized images "
                f"(N, {len(self.mean)}, H, W); give uint8 images, {self.layout}, or such a batch"
            )
        mean, std = (
            torch.tensor(v, dtype=torch.float64)[:, None, None] for v in (self.mean, self.std)
        )
        pixels = (x.detach().double().cpu() * std + mean) * 255
        low, high = pixels.min().item(), pixels.max().item()
        if low < -0.5 - SLACK or high > 255.5 + SLACK:
            raise DataError(
                f"images were not normalized with mean={self.mean} and std={self.std}: undone, "
                f"their pixels go from {low:.1f} to {high:.1f} instead of 0 to 255"
            )
        image = pixels.round().clamp(0, 255).to(torch.uint8)
        return image.permute(0, 2, 3, 1).contiguous() if self.layout == "NHWC" else image

    def _check(self, image: Any) -> None:
        channels = len(self.mean)
        wanted = f"({', '.join(str(channels) if d == 'C' else d for d in self.layout)})"
        if not isinstance(image, Tensor) or image.dtype is not torch.uint8:
            found = image.dtype if isinstance(image, Tensor) else type(image).__name__
            raise DataError(f"the model takes images as bytes, uint8 {wanted}, not {found}")
        if image.dim() != 4 or image.shape[CHANNELS[self.layout]] != channels:
            raise DataError(
                f"the model takes uint8 images {wanted}, not of shape {tuple(image.shape)}"
                + ("; one image needs a dimension of the batch" if image.dim() == 3 else "")
            )


Images = Mapping[str, Image]  # by the name of the argument


def with_images(model: nn.Module, inputs: Image | Images) -> nn.Module:
    """`model`, taking uint8 images, in float: what `quantize(inputs=...)` quantizes.

    inputs: of the first argument of forward, or by the names of arguments.

    It shares the weights of `model`, which is not changed. Raises ConfigError for a name that
    forward does not have.

    >>> net = with_images(nn.Conv2d(3, 8, 3), Image(mean=[0.5] * 3, std=[0.5] * 3))
    >>> net(torch.zeros(1, 8, 8, 3, dtype=torch.uint8)).shape
    torch.Size([1, 8, 6, 6])
    """
    known = inspect.signature(model.forward)
    names = list(known.parameters)
    images = {names[0]: inputs} if isinstance(inputs, Image) and names else inputs
    if not isinstance(images, Mapping) or not all(isinstance(i, Image) for i in images.values()):
        raise ConfigError(
            f"inputs={inputs!r}: an octavo.Image is needed, or a dict of them by argument"
        )
    if unknown := [name for name in images if name not in names]:
        raise ConfigError(
            f"inputs names {unknown[0]!r}, which forward({', '.join(names)}) does not take"
        )
    used = (p.dtype for p in model.parameters() if p.is_floating_point())
    dtype = next(used, torch.float32)
    taking = copy.copy(model)
    own = model.forward
    if getattr(own, "__self__", None) is model:
        own = types.MethodType(own.__func__, taking)  # type: ignore[attr-defined]

    def forward(*args: Any, **kwargs: Any) -> Any:
        bound = known.bind(*args, **kwargs)
        for name, image in images.items():
            if bound.arguments.get(name) is not None:
                x = image.normalize(bound.arguments[name])
                bound.arguments[name] = x if x.dtype is dtype else x.to(dtype)
        return own(*bound.args, **bound.kwargs)

    forward.__signature__ = known  # type: ignore[attr-defined]  # what torch.export reads
    taking.forward = forward
    taking.octavo_images = dict(images)  # type: ignore[assignment]
    return taking


def images_of(model: Any) -> Images:
    """Which arguments of a float, quantized or compiled model are images as bytes."""
    known = getattr(model, "signature", None)
    if hasattr(known, "images"):
        return dict(known.images)
    found: Images = getattr(model, "octavo_images", {})
    return found


def alike(model: Any, other: Any) -> Any:
    """`model`, taking images as bytes if `other` does and it is a float module."""
    images = images_of(other)
    is_float = isinstance(model, nn.Module) and not hasattr(model, "signature")
    return with_images(model, images) if images and is_float and not images_of(model) else model


def _numbers(name: str, values: Any) -> tuple[float, ...]:
    given = tuple(values) if isinstance(values, Sequence) and not isinstance(values, str) else ()
    if not given or not all(isinstance(v, numbers.Real) and math.isfinite(v) for v in given):
        raise ConfigError(f"{name}={values!r}: one number per channel is needed")
    return tuple(map(float, given))
