"""Calibration data, in any accepted form, as calls of the model."""

import difflib
import inspect
import itertools
import math
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import torch
import torch.utils._pytree as pytree
from torch import Tensor, nn
from torch.utils.data import DataLoader

from ..capture.arrays import as_tensor, described, is_foreign, kind_of
from ..capture.images import images_of
from ..capture.signature import Call
from ..errors import DataError, one_line
from .hints import signature_of

ACCEPTED = (
    "a tensor (one batch), a tuple or dict of inputs (one call), an iterable of any of these, "
    "or a DataLoader"
)


def calls(data: Any, model: Any) -> Iterator[Call]:
    """Each batch of `data` as the (args, kwargs) to call `model` with.

    A tensor is one batch, a tuple the positional and a dict the keyword inputs of one call; any
    other iterable (a list, a generator, a DataLoader) yields such batches one after the other,
    and so does a tuple of similar tensors, more than the model takes (`images.split(32)`). Inside
    an iterable a list is treated like a tuple.

    Items that `forward` has no argument for (labels) are dropped: those of a tuple beyond its
    positional arguments, and those of a dict under other names, unless it takes **kwargs. What it
    has an argument for it gets; to calibrate a model that takes `labels` without them, leave them
    out of the dicts. numpy arrays are treated like tensors, and float64, numpy's default, becomes
    float32 unless the model has parameters of another type. Where the model takes images as bytes,
    normalized images (floating point) become the bytes that they were made from.

    Raises DataError for no data, other types, NaN or infinity in a floating point tensor, a dict
    of which forward takes nothing, and where a DataLoader fails.

    >>> labelled = [(torch.rand(2, 4), torch.tensor([0, 1]))]
    >>> [len(args) for args, _ in calls(labelled, nn.Linear(4, 2))]
    [1]
    >>> [list(kwargs) for _, kwargs in calls({"input": torch.rand(2, 4), "id": 7}, nn.Linear(4, 2))]
    [['input']]
    """
    if data is None or isinstance(data, str | bytes | int | float):
        raise DataError(f"calibration data is {data!r}; give {ACCEPTED}")
    if isinstance(data, nn.Module):
        raise DataError(f"calibration data is a model, {type(data).__name__}; give {ACCEPTED}")
    reader = _Reader(model)
    single = isinstance(data, Tensor | np.ndarray | tuple | Mapping)
    if isinstance(data, tuple) and reader.most is not None and len(data) > reader.most:
        single = not _are_batches(data)
    if not single and not isinstance(data, Iterable):
        raise DataError(f"calibration data is {_refused(data)}")
    count = 0
    for batch in [data] if single else _batches(data):
        which = f"batch {count} of the calibration data"
        call = _with_bytes(reader.call(batch, which), model, which)
        _check(call, which)
        count += 1
        yield call
    if count == 0:
        raise DataError(
            "calibration data is empty: an iterable with no batches, or a generator that was "
            "already used up. Give a few hundred samples like those the model will see"
        )


def _are_batches(data: tuple[Any, ...]) -> bool:
    """Whether a tuple too long to be one call holds batches, like `images.split(32)`."""
    tensors = [t for t in data if isinstance(t, Tensor | np.ndarray)]
    kinds = {(t.dtype, tuple(t.shape[1:])) for t in tensors}
    return len(tensors) == len(data) > 1 and len(kinds) == 1


def _refused(data: Any) -> str:
    """What data that cannot be iterated is, and what to give; a Dataset holds single samples."""
    if not (hasattr(data, "__getitem__") and hasattr(data, "__len__")):
        return f"{described(data)}; give {ACCEPTED}"
    try:
        pictures = any(is_foreign(leaf) for leaf in pytree.tree_leaves(data[0]))
    except Exception:  # it is only for the hint
        pictures = False
    first = "give it transform=torchvision.transforms.ToTensor(), and " if pictures else ""
    return (
        f"{kind_of(data)}, a dataset of single samples, and batches are needed: {first}"
        "wrap it in a DataLoader: torch.utils.data.DataLoader(dataset, batch_size=8)"
    )


def _batches(data: Iterable[Any]) -> Iterator[Any]:
    """The items of `data`; where a DataLoader fails, a DataError says at which batch and why."""
    if not isinstance(data, DataLoader):
        yield from data
        return
    iterator = None
    for count in itertools.count():
        try:
            iterator = iter(data) if iterator is None else iterator
            batch = next(iterator)
        except StopIteration:
            return
        except Exception as e:
            reason = one_line(e)
            hint = ""
            if "PIL." in reason:
                hint = ": give the dataset transform=torchvision.transforms.ToTensor()"
            elif "equal size" in reason:
                hint = ": bring the samples to one size, or use batch_size=1"
            raise DataError(
                f"the DataLoader of the calibration data cannot make batch {count}: {reason}{hint}"
            ) from e
        yield batch


class _Reader:
    """Makes calls of one model from batches of any accepted form.

    most: how many positional arguments the model takes; None for any number.
    names: the arguments it takes by name. open: whether it takes any others as well.
    floating: what float64 of numpy becomes.
    """

    def __init__(self, model: Any) -> None:
        parameters = list(signature_of(model).parameters.values())
        kinds = [p.kind for p in parameters]
        by_position = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
        by_name = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
        any_number = inspect.Parameter.VAR_POSITIONAL in kinds
        self.most = None if any_number else sum(k in by_position for k in kinds)
        self.names = [p.name for p in parameters if p.kind in by_name]
        self.open = inspect.Parameter.VAR_KEYWORD in kinds
        own = model.parameters() if isinstance(model, nn.Module) else ()
        used = {p.dtype for p in own if p.is_floating_point()}
        self.floating = torch.float32 if used <= {torch.float32} else None

    def call(self, batch: Any, which: str) -> Call:
        """The call that a batch stands for; `which` batch it is, for messages."""
        if any(map(_is_packed, pytree.tree_leaves(batch, is_leaf=_is_packed))):
            raise DataError(
                f"{which} holds a packed sequence, whose form depends on its values: give the "
                "model a padded tensor, and a mask or the lengths"
            )
        if isinstance(batch, Tensor | np.ndarray):
            call: Call = (batch,), {}
        elif isinstance(batch, Mapping):
            call = (), self._named(dict(batch), which)
        elif isinstance(batch, tuple | list):
            call = tuple(batch)[: self.most], {}
        else:
            raise DataError(
                f"{which} is {described(batch)}; a batch is a tensor, or a tuple or dict of inputs"
            )
        return pytree.tree_map_only(np.ndarray, lambda a: as_tensor(a, self.floating), call)

    def _named(self, batch: dict[Any, Any], which: str) -> dict[str, Any]:
        """The items that the model takes; DataError where it takes none, or a name is misspelt."""
        if self.open or not batch:
            return batch
        taken = {name: batch[name] for name in self.names if name in batch}
        if not taken:
            dict_itself = ", or (batch,) if forward takes the dict itself" if self.most == 1 else ""
            raise DataError(
                f"{which} is a dict of {', '.join(map(str, batch))}, and forward takes none of "
                f"these, but {', '.join(self.names) or 'nothing by name'}: rename the items, or "
                f"give tuples{dict_itself}"
            )
        free = [n for n in self.names if n not in taken and not n.startswith(("label", "target"))]
        for name in (str(key) for key in batch if key not in taken):
            if near := difflib.get_close_matches(name, free, 1, 0.75):
                raise DataError(
                    f"{which} has an item {name!r}, which forward does not take; it does take "
                    f"{near[0]!r}: rename the item, or leave it out"
                )
        return taken


def _with_bytes(call: Call, model: Any, which: str) -> Call:
    """The call with normalized images as bytes, where the model takes bytes."""
    images = images_of(model)
    if not images:
        return call
    args, kwargs = call
    names = [*signature_of(model).parameters][: len(args)]
    try:
        values = {
            name: images[name].to_bytes(value)
            if name in images and isinstance(value, Tensor) and value.is_floating_point()
            else value
            for name, value in (*zip(names, args, strict=True), *kwargs.items())
        }
    except DataError as e:
        raise DataError(f"{which}: {e}") from e
    return tuple(values[name] for name in names), {name: values[name] for name in kwargs}


def _is_packed(value: Any) -> bool:
    return isinstance(value, nn.utils.rnn.PackedSequence)


def _check(call: Call, which: str) -> None:
    leaves = pytree.tree_leaves(call)
    tensors = [t for t in leaves if isinstance(t, Tensor)]
    foreign = next((leaf for leaf in leaves if is_foreign(leaf)), None)
    if foreign is not None:
        raise DataError(f"{which} holds {described(foreign)}")
    if not tensors:
        kinds = sorted({type(leaf).__name__ for leaf in leaves})
        raise DataError(
            f"{which} holds no tensor, but {', '.join(kinds) or 'nothing'}: make tensors of "
            "numbers (torch.tensor; a tokenizer's return_tensors='pt'), and of images (ToTensor)"
        )
    for t in tensors:
        if t.is_meta or t.layout is not torch.strided:
            kind = "on the meta device, without data" if t.is_meta else f"of layout {t.layout}"
            raise DataError(f"{which} has a tensor {kind}: give dense tensors with data")
        if t.numel() == 0:
            raise DataError(f"{which} has an empty tensor {_of(t)}")
        # masks may hold -inf; where it would be quantized, the observer raises an error
        if t.is_floating_point() and not (t < math.inf).all():
            raise DataError(
                f"{which} holds NaN or infinity in a tensor {_of(t)}: drop or mend that sample"
            )


def _of(t: Tensor) -> str:
    return f"of shape {tuple(t.shape)} and dtype {t.dtype}"


def batch_size(call: Call) -> int:
    """The length of the first dimension of a call's first tensor that has any; 1 without one."""
    tensors = (t for t in pytree.tree_leaves(call) if isinstance(t, Tensor) and t.dim())
    return next((t.shape[0] for t in tensors), 1)
