"""Calibration data, in any accepted form, as calls of the model."""

import inspect
import math
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import torch
import torch.utils._pytree as pytree
from torch import Tensor, nn

from ..capture.signature import Call
from ..errors import DataError

ACCEPTED = (
    "a tensor (one batch), a tuple or dict of inputs (one call), an iterable of any of these, "
    "or a DataLoader"
)


def calls(data: Any, model: nn.Module) -> Iterator[Call]:
    """Each batch of `data` as the (args, kwargs) to call `model` with.

    A tensor is one batch, a tuple the positional and a dict the keyword inputs of one call; any
    other iterable (a list, a generator, a DataLoader) yields such batches one after the other,
    and so does a tuple of similar tensors, more than the model takes (`images.split(32)`). Inside
    an iterable a list is treated like a tuple, and items beyond the number of arguments that the
    model takes (labels) are dropped. numpy arrays are treated like tensors. Raises DataError
    for no data, other types, and NaN or infinity in a floating point tensor.

    >>> labelled = [(torch.rand(2, 4), torch.tensor([0, 1]))]
    >>> [len(args) for args, _ in calls(labelled, nn.Linear(4, 2))]
    [1]
    """
    if data is None or isinstance(data, str | bytes | int | float):
        raise DataError(f"calibration data is {data!r}; give {ACCEPTED}")
    most = _positional(model)
    single = isinstance(data, Tensor | np.ndarray | tuple | Mapping)
    if isinstance(data, tuple) and most is not None and len(data) > most:
        single = not _are_batches(data)
    if not single and not isinstance(data, Iterable):
        raise DataError(f"calibration data is a {type(data).__name__}; give {ACCEPTED}")
    count = 0
    for batch in [data] if single else data:
        call = _call(batch, most, count)
        _check(call, count)
        count += 1
        yield call
    if count == 0:
        raise DataError(
            "calibration data is empty: an iterable with no batches, or a generator that was "
            "already used up. Give a few hundred samples like those the model will see"
        )


def _positional(model: nn.Module) -> int | None:
    """How many positional arguments the model takes; None for any number."""
    parameters = inspect.signature(model.forward).parameters.values()
    if any(p.kind is p.VAR_POSITIONAL for p in parameters):
        return None
    return sum(p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD) for p in parameters)


def _are_batches(data: tuple[Any, ...]) -> bool:
    """Whether a tuple too long to be one call holds batches, like `images.split(32)`."""
    tensors = [t for t in data if isinstance(t, Tensor | np.ndarray)]
    kinds = {(t.dtype, tuple(t.shape[1:])) for t in tensors}
    return len(tensors) == len(data) > 1 and len(kinds) == 1


def _call(batch: Any, most: int | None, index: int) -> Call:
    batch = pytree.tree_map_only(np.ndarray, torch.from_numpy, batch)
    if isinstance(batch, Tensor):
        return (batch,), {}
    if isinstance(batch, Mapping):
        return (), dict(batch)
    if isinstance(batch, tuple | list):
        return tuple(batch)[:most], {}
    raise DataError(
        f"batch {index} of the calibration data is a {type(batch).__name__}; {ACCEPTED}"
    )


def _check(call: Call, index: int) -> None:
    tensors = [t for t in pytree.tree_leaves(call) if isinstance(t, Tensor)]
    if not tensors:
        raise DataError(f"batch {index} of the calibration data holds no tensor")
    for t in tensors:
        if t.numel() == 0:
            raise DataError(f"batch {index} of the calibration data has an empty tensor {_of(t)}")
        # masks may hold -inf; where it would be quantized, the observer raises an error
        if t.is_floating_point() and not (t < math.inf).all():
            raise DataError(
                f"batch {index} of the calibration data holds NaN or infinity in a tensor "
                f"{_of(t)}: drop or mend that sample"
            )


def _of(t: Tensor) -> str:
    return f"of shape {tuple(t.shape)} and dtype {t.dtype}"


def batch_size(call: Call, batched: bool = True) -> int:
    """The length of the first dimension of a call's first tensor; 1 where there is no batch."""
    if not batched:
        return 1
    first = next(t for t in pytree.tree_leaves(call) if isinstance(t, Tensor))
    return first.shape[0] if first.dim() else 1


def some_samples(call: Call, start: int, stop: int, batched: bool = True) -> Call:
    """The call with only samples start to stop; tensors without a batch stay whole."""
    if not batched:
        return call
    size = batch_size(call)

    def cut(t: Tensor) -> Tensor:
        return t[start:stop].clone() if t.dim() and t.shape[0] == size else t

    return pytree.tree_map_only(Tensor, cut, call)
