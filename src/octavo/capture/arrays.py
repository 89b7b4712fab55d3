"""What users pass in place of tensors: numpy arrays are taken, pictures and texts are named."""

import os
from typing import Any

import numpy as np
import torch
from torch import Tensor


def as_tensor(array: np.ndarray, floating: torch.dtype | None = None) -> Any:
    """The array as a tensor, which shares its memory where PyTorch can.

    float64, which numpy makes unasked, becomes `floating`, if that is given. An array that holds no
    numbers is returned as it is.

    >>> as_tensor(np.ones(2), torch.float32).dtype
    torch.float32
    """
    if array.dtype.kind not in "biufc":
        return array
    flags_fit = array.flags.writeable and array.dtype.isnative
    if not flags_fit or any(stride < 0 for stride in array.strides):  # flipped images
        array = np.array(array, array.dtype.newbyteorder("="), order="C")
    tensor: Tensor = torch.from_numpy(array)
    wide = floating is not None and tensor.dtype is torch.float64
    return tensor.to(floating) if wide else tensor


def kind_of(value: Any) -> str:
    """The type of a value, for a message: "an OrderedDict"."""
    name = type(value).__name__
    return "None" if value is None else f"{'an' if name[0] in 'AEIOUaeiou' else 'a'} {name}"


def described(value: Any) -> str:
    """A value that is no tensor, for a message: what it is, and what to do where that is known.

    >>> described("cat.jpg")
    "'cat.jpg': load and preprocess what it names, or tokenize it"
    """
    if _is_picture(value):
        return "a PIL image: make a tensor of it, torchvision.transforms.ToTensor()(image)"
    if isinstance(value, str | bytes | os.PathLike):
        return f"{str(value)[:60]!r}: load and preprocess what it names, or tokenize it"
    if isinstance(value, np.ndarray):
        return f"an array of dtype {value.dtype}: make numbers of what it holds"
    return kind_of(value)


def is_foreign(value: Any) -> bool:
    """Whether a leaf of a call is something that no model computes with: a picture, objects."""
    return isinstance(value, np.ndarray) or _is_picture(value)


def _is_picture(value: Any) -> bool:
    """Without importing Pillow, which is optional."""
    return any(kind.__module__.startswith("PIL.") for kind in type(value).__mro__)
