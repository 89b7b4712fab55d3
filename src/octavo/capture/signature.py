"""Signature: converts a call to the flat inputs of the graph, and its flat outputs back."""

from __future__ import annotations

import functools
import inspect
import json
from dataclasses import dataclass
from typing import Any

import torch
import torch.utils._pytree as pytree
from torch import Tensor

from ..errors import CaptureError

Call = tuple[tuple[Any, ...], dict[str, Any]]


@dataclass(frozen=True)
class Signature:
    """How the model is called and what it returns.

    `parameters` are (name, kind) of `forward`; `constants` the leaves of the call that are not
    tensors, by position, which the graph was specialised to; `inputs` the dtype and shape of each
    tensor, with None for a dynamic dimension.
    """

    parameters: tuple[tuple[str, int], ...]
    in_spec: pytree.TreeSpec
    out_spec: pytree.TreeSpec
    constants: tuple[tuple[int, Any], ...]
    inputs: tuple[tuple[str, tuple[int | None, ...]], ...]

    def bind(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Call:
        """The same call with each argument where `forward` has it, by position where possible."""
        return bound_arguments(_rebuild(self.parameters), args, kwargs)[1]

    def flatten(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[Tensor]:
        """The tensors of a call, in the graph's order; raises CaptureError for another call."""
        plain = len(args) == self._positional and not kwargs
        if plain and all(isinstance(a, Tensor) for a in args):
            tensors = list(args)
        else:
            tensors = self._tensors(args, kwargs)
        for (dtype, shape), t in zip(self._forms, tensors, strict=True):
            fits = t.dim() == len(shape) and all(
                want in (None, have) for want, have in zip(shape, t.shape, strict=True)
            )
            if not fits or (t.dtype is not dtype and not t.is_floating_point()):
                expected = ", ".join("any" if d is None else str(d) for d in shape)
                raise CaptureError(
                    f"an input has shape {tuple(t.shape)} and dtype {t.dtype}; the model was "
                    f"captured with shape ({expected}) and dtype {dtype}"
                )
        return tensors

    def _tensors(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[Tensor]:
        """The tensors of a call of any structure."""
        leaves, spec = pytree.tree_flatten(self.bind(args, kwargs))
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
        return [leaf for i, leaf in enumerate(leaves) if i not in constants]

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

    def unflatten(self, outputs: Any) -> Any:
        """The model's output structure, from the graph's flat outputs."""
        if self.out_spec.is_leaf():
            return next(iter(outputs))
        return pytree.tree_unflatten(list(outputs), self.out_spec)

    def examples(self, length: int) -> tuple[Tensor, ...]:
        """Zeros as the graph's inputs: a batch of 2, any other dynamic size `length`."""
        return tuple(
            torch.zeros(
                [(length if i else 2) if d is None else d for i, d in enumerate(shape)],
                dtype=getattr(torch, dtype),
            )
            for dtype, shape in self.inputs
        )

    def to_json(self) -> dict[str, Any]:
        """As JSON data; raises CaptureError for structures that cannot be written."""
        try:
            specs = {k: pytree.treespec_dumps(getattr(self, k)) for k in ("in_spec", "out_spec")}
            json.dumps(self.constants)
        except (NotImplementedError, TypeError) as e:
            raise CaptureError(
                f"the call's structure cannot be saved: {e}\nA class of your own needs a name in "
                'files: torch.export.register_dataclass(Kind, serialized_type_name="package.Kind")'
            ) from e
        plain = {k: getattr(self, k) for k in ("parameters", "constants", "inputs")}
        return plain | specs

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Signature:
        """The inverse of `to_json`."""
        return cls(
            tuple((str(n), int(k)) for n, k in data["parameters"]),
            pytree.treespec_loads(data["in_spec"]),
            pytree.treespec_loads(data["out_spec"]),
            tuple((int(i), v) for i, v in data["constants"]),
            tuple((str(d), tuple(shape)) for d, shape in data["inputs"]),
        )


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
