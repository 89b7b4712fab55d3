"""Signature: converts a call to the flat inputs of the graph, and its flat outputs back."""

from __future__ import annotations

import functools
import inspect
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.utils._pytree as pytree
from torch import Tensor

from ..errors import CaptureError
from .arrays import as_tensor, described
from .branches import holds
from .examples import InputValues, Shapes, made, unlike
from .images import Image

Call = tuple[tuple[Any, ...], dict[str, Any]]
BatchDim = int | str | None  # that counts samples in every input; "auto": as the calls show
BatchDims = tuple[int | None, ...]  # the same, for each input
BYTES_GIVEN = (
    "\nThese are bytes: if they are images, normalize them as in training, or quantize the model "
    "with inputs=octavo.Image(mean=..., std=...), so that it takes bytes"
)


@dataclass(frozen=True)
class Signature:
    """How the model is called and what it returns.

    parameters: (name, kind) of `forward`.
    constants: the leaves of the call that are not tensors, by position, which the graph was
        specialised to.
    inputs: the dtype and shape of each tensor, with None for a dynamic dimension.
    fixed: (input, dimension, reason) of sizes that might have been dynamic; where the dimension is
        dynamic, it must not be 1.
    shapes: shapes of all inputs, at which the captured graph was compared with the model.
    values: what values the inputs had in these calls, for making others like them.
    batch: the dimension of each input that counts samples which do not influence each other, or
        None; empty where that is not known.
    branches: conditions that a call must meet, such as "input0[1] <= 50" of dimension 1 of the
        first input: beyond them forward does something else.
    results: the leaves of the output that are not tensors, by position.
    numbers: positions of leaves that are numbers, computed from sizes; the graph returns tensors.
    images: arguments that are uint8 images, by name, and how the model normalizes them.
    output_types: the dtype of each tensor of the output; "" where it is the graph's. Not empty if
        the model computes in other floating point types than the graph, which is in float32.
    """

    parameters: tuple[tuple[str, int], ...]
    in_spec: pytree.TreeSpec
    out_spec: pytree.TreeSpec
    constants: tuple[tuple[int, Any], ...]
    inputs: tuple[tuple[str, tuple[int | None, ...]], ...]
    fixed: tuple[tuple[int, int, str], ...] = ()
    shapes: tuple[Shapes, ...] = ()
    values: tuple[InputValues, ...] = ()
    batch: BatchDims = ()
    branches: tuple[str, ...] = ()
    results: tuple[tuple[int, Any], ...] = ()
    numbers: tuple[int, ...] = ()
    output_types: tuple[str, ...] = ()
    images: tuple[tuple[str, Image], ...] = ()

    @property
    def forward(self) -> inspect.Signature:
        """The parameters of `forward`, all with a default."""
        return _rebuild(self.parameters)

    def bind(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Call:
        """The same call with each argument where `forward` has it, by position where possible."""
        return bound_arguments(self.forward, args, kwargs)[1]

    def flatten(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[Tensor]:
        """The tensors of a call, in the graph's order; raises CaptureError for another call."""
        plain = len(args) == self._positional and not kwargs
        if plain and all(isinstance(a, Tensor) for a in args):
            tensors = list(args)
        else:
            tensors = self._tensors(args, kwargs)
        for i, ((dtype, shape), t) in enumerate(zip(self._forms, tensors, strict=True)):
            fits = len(t.shape) == len(shape) and all(
                have == want if want is not None else have != 1 or (i, d) not in self._not_one
                for d, (want, have) in enumerate(zip(shape, t.shape, strict=True))
            )
            both_float = t.is_floating_point() and dtype.is_floating_point
            if not fits or not (t.dtype is dtype or both_float):
                raise CaptureError(self._misfit(i, t))
        for condition in self.branches:
            if not holds(condition, [t.shape for t in tensors]):
                raise CaptureError(
                    f"inputs of shapes {', '.join(str(tuple(t.shape)) for t in tensors)} do not "
                    f"meet the condition {condition}, on which the model's forward depends: it "
                    "was captured with inputs that do"
                )
        if self.output_types:
            tensors = [t.float() if t.is_floating_point() else t for t in tensors]
        return tensors

    def _misfit(self, i: int, t: Tensor) -> str:
        """Why a tensor cannot be input `i`."""
        dtype, shape = self._forms[i]
        expected = ", ".join("any" if d is None else str(d) for d in shape)
        reasons = [
            f"\nDimension {d} {f'is fixed at {shape[d]}' if shape[d] else 'may not be 1'}: {reason}"
            for n, d, reason in self.fixed
            if n == i and d < t.dim() == len(shape) and t.shape[d] != shape[d]
        ]
        if t.dtype is torch.uint8 and dtype.is_floating_point:
            reasons.append(BYTES_GIVEN)
        elif self.images and dtype is torch.uint8:
            layouts = " or ".join(sorted({image.layout for _, image in self.images}))
            reasons.append(f"\nThe model normalizes images itself: give them as bytes, {layouts}")
        return (
            f"an input has shape {tuple(t.shape)} and dtype {t.dtype}; the model was "
            f"captured with shape ({expected}) and dtype {dtype}{''.join(reasons)}"
        )

    def _tensors(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[Tensor]:
        """The tensors of a call of any structure."""
        leaves, spec = pytree.tree_flatten(self.bind(args, kwargs))
        leaves = [as_tensor(v, torch.float32) if isinstance(v, np.ndarray) else v for v in leaves]
        if spec != self.in_spec:
            raise CaptureError(
                f"called with arguments of structure {_structure(spec)}, but the model was "
                f"captured with {_structure(self.in_spec)}: quantize it again with calibration "
                "data that is called this way"
            )
        constants = dict(self.constants)
        for i, value in constants.items():
            if leaves[i] != value:
                raise CaptureError(
                    f"argument {i} is {leaves[i]!r}, but the graph was captured with {value!r} "
                    "and is specialised to it: quantize the model again with the other value"
                )
        tensors = [leaf for i, leaf in enumerate(leaves) if i not in constants]
        for t in tensors:
            if not isinstance(t, Tensor):
                raise CaptureError(f"an input is {described(t)}; call it with tensors or arrays")
        return tensors

    def call(self, tensors: Sequence[Tensor]) -> Call:
        """The inverse of `flatten`."""
        rest, constants = iter(tensors), dict(self.constants)
        count = self.in_spec.num_leaves
        leaves = [constants[i] if i in constants else next(rest) for i in range(count)]
        args, kwargs = pytree.tree_unflatten(leaves, self.in_spec)
        return args, kwargs

    # cached for the most common calls: binding and flattening cost more than a small layer

    @functools.cached_property
    def _positional(self) -> int:
        """How many tensors a call of nothing but positional tensors has; -1 for other calls."""
        call: Call = ((0,) * self.in_spec.num_leaves, {})
        plain = not self.constants and self.in_spec == pytree.tree_structure(call)
        return self.in_spec.num_leaves if plain else -1

    @functools.cached_property
    def _forms(self) -> list[tuple[torch.dtype, tuple[int | None, ...]]]:
        return [(getattr(torch, dtype), shape) for dtype, shape in self.inputs]

    @functools.cached_property
    def _not_one(self) -> set[tuple[int, int]]:
        return {(i, d) for i, d, _ in self.fixed if self.inputs[i][1][d] is None}

    @property
    def returned(self) -> int:
        """How many of the graph's outputs are the model's; further ones are for measuring."""
        return self.out_spec.num_leaves - len(self.results)

    def unusual(self, tensors: Sequence[Tensor]) -> str:
        """Which input is of another scale than in calibration; an empty string for none."""
        for i, (t, seen) in enumerate(zip(tensors, self.values, strict=False)):
            if t.is_floating_point() and not t.is_meta and (found := unlike(t, seen)):
                return f"input {i} {found}"
        return ""

    def unflatten(self, outputs: Any) -> Any:
        """The model's output structure, from the graph's flat outputs."""
        leaves = list(outputs)[: self.returned]
        for i, dtype in enumerate(self.output_types):
            leaves[i] = leaves[i].to(getattr(torch, dtype)) if dtype else leaves[i]
        for position, value in self.results:
            leaves.insert(position, value)
        for position in self.numbers:
            leaves[position] = leaves[position].item()
        return (
            leaves[0] if self.out_spec.is_leaf() else pytree.tree_unflatten(leaves, self.out_spec)
        )

    def examples(
        self, lengths: Sequence[int], largest: float = math.inf
    ) -> list[tuple[Tensor, ...]]:
        """Inputs like those of the calibration data, one set at each of the sizes in `shapes`.

        A signature without shapes, of an older file, gets zeros: batches of 2, 3 and so on, and any
        other dynamic size is each of `lengths` in turn. Sets of more than `largest` numbers are
        left out.
        """
        dtypes = [dtype for dtype, _ in self._forms]
        sets: Sequence[Shapes] = self.shapes or [
            tuple(
                tuple((length if i else batch) if d is None else d for i, d in enumerate(shape))
                for _, shape in self.inputs
            )
            for batch, length in enumerate(lengths, 2)
        ]
        values = self.values or ((0.0, 0.0, 0.0, 0.0, False),) * len(dtypes)
        return [
            made(shapes, dtypes, values, seed)
            for seed, shapes in enumerate(sets)
            if sum(map(math.prod, shapes)) <= largest
        ]


def _structure(spec: pytree.TreeSpec) -> str:
    return str(pytree.tree_unflatten(["*"] * spec.num_leaves, spec)).replace("'*'", "*")


@functools.cache
def _rebuild(parameters: tuple[tuple[str, int], ...]) -> inspect.Signature:
    kinds = list(inspect._ParameterKind)
    parts = [inspect.Parameter(n, kinds[k], default=None) for n, k in parameters if k not in (2, 4)]
    rest = [inspect.Parameter(n, kinds[k]) for n, k in parameters if k in (2, 4)]
    return inspect.Signature(sorted(parts + rest, key=lambda p: p.kind))


def bound_arguments(
    signature: inspect.Signature, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[dict[str, Any], Call]:
    """A call's arguments by name, and the call as `signature` takes it; else CaptureError."""
    try:
        bound = signature.bind(*args, **kwargs)
    except TypeError as e:
        raise CaptureError(f"forward{signature} cannot be called like this: {e}") from e
    for p in signature.parameters.values():
        if p.kind is p.VAR_KEYWORD and p.name in bound.arguments:
            bound.arguments[p.name] = dict(sorted(bound.arguments[p.name].items()))
    return dict(bound.arguments), (bound.args, bound.kwargs)


def input_form(value: Tensor) -> tuple[str, tuple[int | None, ...]]:
    """Dtype and shape of a symbolic tensor, as `Signature.inputs` has them."""
    dtype = str(value.dtype).removeprefix("torch.")
    return dtype, tuple(d if type(d) is int else None for d in value.shape)
