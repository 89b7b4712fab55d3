"""Which sizes of the inputs may change from call to call: as calls show, or as the user says."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch.utils._pytree as pytree
from torch import Tensor
from torch.export import Dim

from ..errors import CaptureError, ConfigError
from .branches import Place
from .signature import BatchDim

LEAST, MOST = 2, 1 << 40  # bounds beyond these are torch.export's own
Arguments = dict[str, Any]  # of a call, by name
Attempt = tuple[Arguments, Any]  # arguments and dynamic shapes, as torch.export takes them


@dataclass(frozen=True)
class FreeSizes:
    """What the user says of sizes; see `quantize`.

    dynamic_shapes: as torch.export has it: then no other size is free. None: as the calls show.
    batch_dim: the dimension that counts samples, which is free; None: there is none.

    Raises ConfigError for anything else.
    """

    dynamic_shapes: Any = None
    batch_dim: BatchDim = "auto"

    def __post_init__(self) -> None:
        dim = self.batch_dim
        is_number = isinstance(dim, int) and not isinstance(dim, bool) and dim >= 0
        if dim is not None and dim != "auto" and not is_number:
            raise ConfigError(
                f"batch_dim={dim!r}: a dimension (0, 1, ...), None or 'auto' is needed"
            )
        shapes = self.dynamic_shapes
        if shapes is not None and not isinstance(shapes, dict | tuple | list):
            raise ConfigError(
                f"dynamic_shapes={shapes!r}: a dict from arguments of forward to their free sizes, "
                "such as {'x': {0: torch.export.Dim('batch')}}, or a tuple of these, is needed"
            )

    def attempts(self, calls: Sequence[Arguments], fixed: Mapping[Place, str]) -> list[Attempt]:
        """What to try in turn; `fixed` sizes are not free.

        A batch of 1 is doubled, since torch.export would specialise 1, unless the model does not
        take that: the dimension may count the layers of a state.
        """
        arguments = calls[0]
        if self.dynamic_shapes is not None:
            given = {i: set(dims) for i, dims in enumerate(self.given(arguments))}
            shapes = _shapes(fixed, arguments, given)
            return [(_doubled(fixed, arguments, given), shapes), (arguments, shapes)]
        dim: Any = 0 if self.batch_dim == "auto" else self.batch_dim
        batch = {i: {dim} - {None} for i in range(len(_tensors(arguments)))}
        alike = [o for o in calls[1:] if _structures(o) == _structures(arguments)]
        more = _differing(arguments, alike)
        widest = _shapes(fixed, arguments, {i: dims | more[i] for i, dims in batch.items()})
        narrow = _shapes(fixed, arguments, batch)
        doubled = _doubled(fixed, arguments, batch)
        attempts = [(doubled, widest), (arguments, widest)] if widest != narrow else []
        return [*attempts, (doubled, narrow), (arguments, narrow), (arguments, None)]

    def given(self, arguments: Arguments) -> list[dict[int, Any]]:
        """Of `dynamic_shapes`, what it says of the dimensions of each tensor."""
        shapes = self.dynamic_shapes
        if shapes is None:
            return []
        if not isinstance(shapes, dict):
            shapes = dict(zip(arguments, shapes, strict=False))
        if unknown := [name for name in shapes if name not in arguments]:
            raise ConfigError(
                f"dynamic_shapes has {unknown[0]!r}, which is no argument of the call: it has "
                f"{', '.join(arguments)}"
            )
        return [
            found
            for name, value in arguments.items()
            for found in _of_tensors(value, shapes.get(name), name)
        ]

    def bounds(self, arguments: Arguments) -> list[str]:
        """Conditions that a call must meet: the least and largest sizes that the user gave."""
        return [
            f"input{i}[{d}] {sign} {bound}"
            for i, dims in enumerate(self.given(arguments))
            for d, dim in dims.items()
            for sign, bound in (
                (">=", getattr(dim, "min", None)),
                ("<=", getattr(dim, "max", None)),
            )
            if bound is not None and LEAST < bound < MOST
        ]

    def check(
        self,
        arguments: Arguments,
        inputs: Sequence[tuple[str, tuple[int | None, ...]]],
        fixed: Mapping[Place, str],
    ) -> None:
        """Raise CaptureError for a size that is not free though the user says so."""
        for i, dims in enumerate(self.given(arguments)):
            for d in dims:
                if inputs[i][1][d] is None and (i, d) not in fixed:
                    continue
                reason = fixed.get((i, d), "tracing fixes it: forward may depend on its value")
                raise CaptureError(
                    f"dynamic_shapes says that dimension {d} of input {i} is free, but {reason}"
                )


def _of_tensors(value: Any, shapes: Any, name: str) -> list[dict[int, Any]]:
    """The free dimensions of each tensor in an argument, from what `dynamic_shapes` has for it."""
    if isinstance(value, Tensor):
        pairs = enumerate(shapes) if isinstance(shapes, list | tuple) else (shapes or {}).items()
        found = {d: dim for d, dim in pairs if dim is not None and dim is not Dim.STATIC}
        if wrong := [d for d in found if not isinstance(d, int) or not 0 <= d < value.dim()]:
            raise ConfigError(
                f"dynamic_shapes has dimension {wrong[0]!r} for {name!r}, which has {value.dim()}"
            )
        return [{d: dim for d, dim in found.items() if not isinstance(dim, int)}]
    leaves = pytree.tree_leaves(value)
    if shapes is None:
        return [{} for leaf in leaves if isinstance(leaf, Tensor)]
    parts = value.items() if isinstance(value, dict) else enumerate(value)
    known = shapes if isinstance(shapes, dict) else dict(enumerate(shapes))
    return [f for key, part in parts for f in _of_tensors(part, known.get(key), f"{name}[{key!r}]")]


def _tensors(arguments: Arguments) -> list[Tensor]:
    return [t for t in pytree.tree_leaves(arguments) if isinstance(t, Tensor)]


def _doubled(
    fixed: Mapping[Place, str], arguments: Arguments, free: Mapping[int, set[int]]
) -> Arguments:
    count = itertools.count()

    def double(t: Tensor) -> Tensor:
        i = next(count)
        single = {d for d in free[i] if d < t.dim() and t.shape[d] == 1 and (i, d) not in fixed}
        sizes = [2 if d in single else n for d, n in enumerate(t.shape)]
        return t.expand(sizes).clone() if single else t

    doubled: Arguments = pytree.tree_map_only(Tensor, double, arguments)
    return doubled


def _structures(arguments: Arguments) -> Any:
    leaves, spec = pytree.tree_flatten(arguments)
    return spec, [leaf.dim() if isinstance(leaf, Tensor) else type(leaf) for leaf in leaves]


def _differing(arguments: Arguments, others: Sequence[Arguments]) -> list[set[int]]:
    """Dimensions that differ in other calls, and the second if as long as token ids."""
    tensors = _tensors(arguments)
    lengths = {t.shape[1] for t in tensors if t.dim() == 2 and not t.is_floating_point()} - {1}
    found = []
    for t, *rest in zip(tensors, *map(_tensors, others), strict=True):
        differ = {d for o in rest for d in range(t.dim()) if o.shape[d] != t.shape[d]}
        found.append(differ | ({1} if t.dim() > 1 and t.shape[1] in lengths else set()))
    return found


def _shapes(fixed: Mapping[Place, str], arguments: Arguments, free: Mapping[int, set[int]]) -> Any:
    """The free dimensions as torch.export takes them."""

    def dims(i: int, t: Tensor) -> dict[int, Any] | None:
        found = sorted(d for d in free[i] if d < t.dim() and (i, d) not in fixed)
        return dict.fromkeys(found, Dim.AUTO) or None

    count = itertools.count()
    return pytree.tree_map(
        lambda leaf: dims(next(count), leaf) if isinstance(leaf, Tensor) else None, arguments
    )
