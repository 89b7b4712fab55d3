"""Inputs like those of the calibration data, made from what a signature keeps of it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TypeVar

import torch
from torch import Tensor

Result = TypeVar("Result")
Shapes = tuple[tuple[int, ...], ...]  # of all inputs of a call
SOME = 4096  # values that are looked at
LEAST_HALVED = 10  # times: smaller numbers might be lost to rounding
InputValues = tuple[float, float, float, float, bool]  # least, greatest, mean, deviation, sorted


def values_of(tensors: Sequence[Tensor]) -> InputValues:
    """What values an input had in some calls; infinite ones, as in masks, do not count."""
    flat = torch.cat([t.detach().reshape(-1).double().cpu() for t in tensors])
    flat = flat[flat.isfinite()]
    if not flat.numel():
        return 0.0, 0.0, 0.0, 0.0, False
    low, high, mean = flat.min().item(), flat.max().item(), flat.mean().item()
    deviation = flat.std().item() if flat.numel() > 1 else 0.0
    return low, high, mean, deviation, all(map(_is_sorted, tensors))


def _is_sorted(t: Tensor) -> bool:
    """Positions, offsets: integers that never fall along the last dimension."""
    several = t.dim() > 0 and t.shape[-1] > 1 and not t.is_floating_point()
    return several and t.dtype is not torch.bool and bool((t.diff(dim=-1) >= 0).all())


def unlike(t: Tensor, values: InputValues) -> str:
    """How the scale of a tensor differs from that seen; an empty string if it hardly does.

    Images in [0, 255] where [0, 1] was seen, or the reverse, lose nearly everything when quantized.
    """
    low, high, *_ = values
    some = t.detach().reshape(-1)
    some = some[:: max(1, some.numel() // SOME)].double()
    some = some[some.isfinite()]  # infinite ones, as in masks, were not counted either
    far = (some < low - (high - low) / 2) | (some > high + (high - low) / 2)
    flat = some.numel() > 1 and 0 < float(some.std()) < (high - low) / 255
    if not some.numel() or (far.double().mean() <= 0.5 and not flat):
        return ""
    return (
        f"holds values from {some.min():.4g} to {some.max():.4g}; in calibration they went from "
        f"{low:.4g} to {high:.4g}"
    )


def made(
    shapes: Shapes, dtypes: Sequence[torch.dtype], values: Sequence[InputValues], seed: int
) -> tuple[Tensor, ...]:
    """Inputs of these shapes; the same for the same seed."""
    generator = torch.Generator().manual_seed(seed)
    return tuple(
        _made(shape, dtype, each, generator)
        for shape, dtype, each in zip(shapes, dtypes, values, strict=True)
    )


def _made(
    shape: Sequence[int], dtype: torch.dtype, values: InputValues, generator: torch.Generator
) -> Tensor:
    low, high, mean, deviation, is_sorted = values
    if dtype is torch.bool:
        return torch.rand(tuple(shape), generator=generator) < mean
    if dtype.is_floating_point or dtype.is_complex:
        drawn = mean + deviation * torch.randn(tuple(shape), generator=generator)
        return drawn.clamp(low, high).to(dtype)
    ids = torch.randint(int(low), int(high) + 1, tuple(shape), generator=generator)
    if is_sorted:
        ids = ids.sort(-1)[0]
        ids[..., :1] = int(low)
    return ids.to(dtype)


def calls(
    examples: Iterable[tuple[Tensor, ...]], run: Callable[..., Result]
) -> Iterator[tuple[tuple[Tensor, ...], Result]]:
    """The examples that `run` takes, each with what it returns.

    Made from ranges alone, an example may not be a call that a model takes. Its integers may count
    the rows of another input, as the edges of a graph do: then they are made smaller.
    """
    for inputs in examples:
        for tried in (inputs, _within_rows(inputs)):
            try:
                result = run(*tried)
            except Exception:
                continue
            yield tried, result
            break


def _within_rows(inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """Integers below the number of rows of each input of real numbers."""
    rows = min((len(t) for t in inputs if t.dim() and t.is_floating_point()), default=1)
    return tuple(t if t.is_floating_point() or t.dtype is torch.bool else t % rows for t in inputs)


def first_and_last(examples: Sequence[tuple[Tensor, ...]]) -> list[tuple[Tensor, ...]]:
    """The two of several examples that differ most in size, or the only one."""
    return [*examples[:1], *examples[1:][-1:]]


def resized(t: Tensor, shape: Sequence[int]) -> Tensor:
    """A tensor in another shape of the same rank: its last items, repeated where they are too few.

    The last rather than the first: a sample that depends on those before it shows. Repeated numbers
    are larger, by an eighth each time: a maximum over too few of them shows.
    """
    for dim, size in enumerate(shape):
        have = t.shape[dim]
        if have != size and have:
            first = math.ceil(size / have) * have - size
            where = torch.arange(first, first + size, device=t.device)
            t = t.index_select(dim, where % have)
            if t.is_floating_point():
                t = _scaled(t, dim, 1 + (where[-1] // have - where // have) / 8)
    return t


def at_the_end(t: Tensor, dim: int) -> Tensor:
    """The tensor with numbers that halve from the last item of a dimension to the first.

    A maximum over too few of the first items shows.
    """
    distance = torch.arange(t.shape[dim] - 1, -1, -1, device=t.device)
    return _scaled(t, dim, 0.5 ** distance.clamp(max=LEAST_HALVED)) if t.is_floating_point() else t


def _scaled(t: Tensor, dim: int, scales: Tensor) -> Tensor:
    return t * scales.to(t.dtype).view([-1] + [1] * (t.dim() - 1 - dim))
