"""Hints: what to do about a call that a float model refused, found by comparing the two."""

from __future__ import annotations

import functools
import inspect
import traceback
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from ..capture.arrays import kind_of
from ..capture.signature import Call, Signature


def signature_of(model: Any) -> inspect.Signature:
    """What `forward` takes; for a model that another one wraps, what the inner one takes.

    For a quantized or compiled model, what the forward of the float model took.
    """
    if isinstance(known := getattr(model, "signature", None), Signature):
        return known.forward
    while True:
        if isinstance(model, nn.DataParallel | nn.parallel.DistributedDataParallel):
            model = model.module
        elif isinstance(compiled := getattr(model, "_orig_mod", None), nn.Module):
            model = compiled  # by torch.compile
        else:
            return inspect.signature(model.forward)


def hints(failure: Failure) -> list[str]:
    """A sentence, without its full stop, for each mistake found; empty if none is."""
    if structure := _structure(failure):
        return [structure]
    finders = (_device, _labels, _integers, _floats, _shapes, _ids)
    return [hint for find in finders if (hint := find(failure))]


@dataclass(frozen=True)
class Failure:
    """A call that a model refused, and where in it.

    path, layer: the innermost module that raised, and its path; "" and None if there is none.
    seen: the tensor that it was called with, if that is known.
    """

    model: nn.Module
    call: Call
    error: Exception
    path: str = ""
    layer: nn.Module | None = None
    seen: Tensor | None = None

    @classmethod
    def of(cls, model: nn.Module, call: Call, error: Exception) -> Failure:
        """From the traceback of the error, which need not be there."""
        frames = [f.f_locals for f, _ in traceback.walk_tb(error.__traceback__)]
        within = [f for f in frames if isinstance(f.get("self"), nn.Module)]
        if not within:
            return cls(model, call, error)
        root, layer = within[0]["self"], within[-1]["self"]  # the root may be a copy of the model
        path = next((name for name, m in root.named_modules() if m is layer), "")
        inputs = [f.get("input") for f in within if f["self"] is layer]
        seen = next((t for t in reversed(inputs) if isinstance(t, Tensor)), None)
        return cls(model, call, error, path, layer, seen)

    @functools.cached_property
    def inputs(self) -> dict[str, Any]:
        """The arguments of the call by the model's names for them."""
        args, kwargs = self.call
        names = list(signature_of(self.model).parameters)
        names += [f"input {i}" for i in range(len(names), len(args))]
        return {**dict(zip(names, args, strict=False)), **kwargs}

    @functools.cached_property
    def tensors(self) -> dict[str, Tensor]:
        """Those of the inputs that are tensors."""
        return {name: t for name, t in self.inputs.items() if isinstance(t, Tensor)}

    def layer_of(self, kind: Any) -> Any:
        """The layer that raised, if it is of this kind."""
        return self.layer if isinstance(self.layer, kind) else None

    @property
    def weights(self) -> torch.dtype | None:
        """The floating point type of the weights that were used, if they are of one type."""
        for module in (self.layer, self.model):
            parameters = () if module is None else module.parameters()
            if used := {p.dtype for p in parameters if p.is_floating_point()}:
                return used.pop() if len(used) == 1 else None
        return None

    @property
    def first_convolution(self) -> tuple[str, _ConvNd] | None:
        """The convolution that raised, or else the model's first, and its path."""
        if isinstance(self.layer, _ConvNd):
            return self.path, self.layer
        found = ((n, m) for n, m in self.model.named_modules() if isinstance(m, _ConvNd))
        return next(found, None)


def _structure(failure: Failure) -> str | None:
    """Arguments missing or too many, or containers where a tensor was expected."""
    signature = signature_of(failure.model)
    args, kwargs = failure.call
    try:
        signature.bind(*args, **kwargs)
    except TypeError as e:
        return (
            f"forward({', '.join(signature.parameters)}) cannot be called like this: {e}. Give "
            "each batch as a tuple of its arguments in their order, or as a dict of them by name"
        )
    for name, value in failure.inputs.items():
        if isinstance(value, Mapping) and value.keys() & signature.parameters.keys():
            return f"{name!r} is a dict of forward's arguments: give it by itself, in no tuple"
        if isinstance(value, list | tuple) and isinstance(failure.error, TypeError):
            return (
                f"{name!r} is {kind_of(value)}: stack its samples to one tensor, as a "
                "DataLoader does, and give the batch as (inputs, labels), with no tuple inside"
            )
    return None


def _device(failure: Failure) -> str | None:
    tensors = (*failure.model.parameters(), *failure.model.buffers())
    there, here = ({str(t.device) for t in ts} for ts in (tensors, failure.tensors.values()))
    if not there or here <= there:
        return None
    return (
        f"The model is on {', '.join(sorted(there))} and the batch on {', '.join(sorted(here))}: "
        "bring them together, model.cpu() or x.to(device)"
    )


def _labels(failure: Failure) -> str | None:
    """Labels in the place of the input, or given to an optional argument after it."""
    parameters = signature_of(failure.model).parameters
    for i, (name, t) in enumerate(failure.tensors.items()):
        if t.is_floating_point() or t.dim() != 1 or failure.layer_of(nn.Embedding):
            continue
        if i == 0:
            return (
                f"{name!r} is one integer per sample: if these are labels, let the inputs come "
                "first, (image, label)"
            )
        if name in parameters and parameters[name].default is not inspect.Parameter.empty:
            return (
                f"{name!r} got one integer per sample: if these are labels, give the inputs alone"
            )
    return None


def _integers(failure: Failure) -> str | None:
    """Integers, such as pixels of 0 to 255, for weights that are floating point."""
    seen = failure.seen
    if failure.weights is None or (seen is not None and seen.is_floating_point()):
        return None
    has_ids = any(isinstance(m, nn.Embedding) for m in failure.model.modules())
    for name, t in failure.tensors.items():
        if t.is_floating_point() or t.is_complex() or t.dim() < 2:
            continue
        if t.dtype is torch.uint8 and t.dim() > 2:
            return (
                f"{name!r} holds pixels of 0 to 255: preprocess them as in training, "
                f"{name}.float() / 255 and what else was done, or quantize with "
                "inputs=octavo.Image(mean=..., std=...), so that the quantized model takes bytes"
            )
        if not has_ids:
            return f"{name!r} holds integers, the weights are {failure.weights}: {name}.float()"
    return None


def _floats(failure: Failure) -> str | None:
    """Another floating point type than that of the weights."""
    want = failure.weights
    if want is None or (failure.seen is not None and failure.seen.dtype is want):
        return None
    for name, t in failure.tensors.items():
        if not t.is_floating_point() or t.dtype is want:
            continue
        both = f"{name!r} is {t.dtype}, the weights are {want}"
        if want is torch.float32:
            return f"{both}: give {name}.float()"
        return f"{both}: quantize model.float(), or give {name}.to({want})"
    return None


def _shapes(failure: Failure) -> str | None:
    """A layout or a size that the first convolution, or the layer that raised, does not take."""
    layer, seen = failure.layer, failure.seen
    if found := failure.first_convolution:
        path, conv = found
        for name, t in failure.tensors.items():
            if t.dim() > 1 and (hint := _layout(name, t, conv)):
                return hint
            direct = layer is conv and seen is not None and seen.shape == t.shape
            if direct and t.dim() > 1 and t.shape[1] != conv.in_channels:
                dims = "N, C, H, W" if len(conv.kernel_size) == 2 else "N, C, ..."
                return (
                    f"{_called(path, conv)} takes tensors of shape ({dims}) with "
                    f"C={conv.in_channels}: convert the images, from grey, RGB or RGBA, to these"
                )
    takes = getattr(layer, "in_features", getattr(layer, "input_size", None))
    if not isinstance(takes, int) or seen is None or seen.shape[-1:] == (takes,):
        return None
    return (
        f"{_called(failure.path, layer)} takes {takes} features and got a tensor of shape "
        f"{tuple(seen.shape)}: are the samples of the size and layout that the model was made for?"
    )


def _called(path: str, layer: Any) -> str:
    return f"{type(layer).__name__} {path!r}" if path else f"The {type(layer).__name__}"


def _layout(name: str, t: Tensor, conv: _ConvNd) -> str | None:
    """Channels last, or dimensions that a batch of images has and this tensor does not."""
    space, channels, shape = len(conv.kernel_size), conv.in_channels, t.shape
    few = (1, 3, 4)  # grey, RGB, RGBA
    if t.dim() == space + 2 and shape[1] != channels:
        last = shape[-1] == channels or (channels in few and shape[-1] in few and space > 1)
        if last and shape[1] not in few:
            return f"{name!r} has its channels last: {name}.movedim(-1, 1)"
    if t.dim() == space and space > 1:
        return f"{name!r} is one image without batch and channels: {name}[None, None]"
    if t.dim() != space + 1:
        return None
    if shape[0] == channels:
        return (
            f"{name!r} is one sample without the dimension of the batch: {name}.unsqueeze(0), or "
            "a DataLoader"
        )
    if channels == 1:
        return f"{name!r} has no dimension of channels: {name}.unsqueeze(1)"
    if shape[-1] == channels:
        return (
            f"{name!r} is one sample without the dimension of the batch, and has its channels "
            f"last: {name}.movedim(-1, 0).unsqueeze(0)"
        )
    return None


def _ids(failure: Failure) -> str | None:
    """What an embedding cannot look up."""
    table, ids = failure.layer_of(nn.Embedding | nn.EmbeddingBag), failure.seen
    if table is None or ids is None or not ids.numel() or ids.device.type != "cpu":
        return None  # after such an error, a GPU answers nothing
    if ids.is_floating_point():
        return f"{_called(failure.path, table)} takes integers: give ids.long()"
    low, high, rows = int(ids.min()), int(ids.max()), table.num_embeddings
    if low >= 0 and high < rows:
        return None
    found = f"from {low} to {high}, and {_called(failure.path, table)} has {rows} rows"
    if any(ids.shape == t.shape and bool((ids == t).all()) for t in failure.tensors.values()):
        return f"The ids go {found}: is this the tokenizer of this model?"
    return f"The model made ids {found}: are the sequences longer than it has positions?"
