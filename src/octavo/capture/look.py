"""The second look: does the captured graph compute what the model computes, at other sizes too?

torch.export follows one call. A loop over the batch is unrolled, a table that the model keeps for
one shape becomes a constant, a branch on a size is taken once; the graph then computes something
else at another size, without an error. So graph and model are run side by side: on the call
itself, and at another value of every size that is free.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, fx, nn

from ..errors import CaptureError, DataError
from ..graph.compare import difference
from ..graph.interpreter import observe_values
from ..graph.names import describe, module_path
from .branches import Place, as_text, breaking, broken, only
from .comparison import Comparison, Run, shapes_of
from .examples import Shapes
from .signature import BatchDim, BatchDims, Signature
from .unchanged import unchanged

LARGEST, LARGER = 1 << 16, 4  # values of inputs that are tried; times as many as the call has
SMALL = (1, 2, 4, 8, 32)  # sizes, where conditions on sizes are often broken
SEVERAL = 3  # samples of a batch that are enough for a comparison
Limits = Mapping[Place, str]  # (input, dimension) -> why it is not free


@dataclass(frozen=True)
class Look:
    """What the comparison found.

    fixed: sizes at another value of which the graph is not the model.
    not_one: sizes at which it is the model, unless they are 1.
    shapes: the shapes at which both agreed; first a batch of 1, if possible, then all free sizes
        at another value at once.
    batch: for each input, the dimension that counts independent samples, or None.
    branches: conditions on sizes beyond which it is not the model, or the model does not run.
    """

    fixed: Limits
    not_one: Limits = field(default_factory=dict)
    shapes: tuple[Shapes, ...] = ()
    batch: BatchDims = ()
    branches: tuple[str, ...] = ()


def second_look(
    model: nn.Module,
    module: fx.GraphModule,
    signature: Signature,
    calls: Sequence[list[Tensor]],
    batch_dim: BatchDim = "auto",
) -> Look:
    """Compare the graph with the model; CaptureError if they differ on a call of the data.

    calls: the tensors of one or two calls. batch_dim: as in `quantize`.
    """
    compare = Comparison(model, module, signature)
    batch = _symbol_at(compare, 0 if batch_dim == "auto" else batch_dim)
    base, outputs = _few(compare, calls, batch)
    if base is calls[0]:
        if found := compare.difference(base, outputs):
            raise CaptureError(_explain(compare, base, found))
    elif reason := _reason(compare, base, outputs, compare.places(batch)):
        return Look(dict.fromkeys(compare.places(batch), reason))
    fixed: dict[Place, str] = {}
    not_one: dict[Place, str] = {}
    alone: list[Tensor] = base
    counted: BatchDims = ()
    if batch is not None:
        places = compare.places(batch)
        size = base[places[0][0]].shape[0]
        for one, outputs_of_one in _runs(compare, base, batch, [1, 2]):
            if not compare.allows(one, also_open=True):
                continue
            counted = _counted(compare, batch, outputs, outputs_of_one)
            reason = _reason(compare, one, outputs_of_one, places)
            if not reason:
                alone = one
            elif one[places[0][0]].shape[0] == 1:
                not_one = dict.fromkeys(places, reason)
                fixed |= _other(compare, base, batch, [size + 1, 2 * size])
            else:
                fixed |= dict.fromkeys(places, reason)
            break
        else:
            fixed |= _other(compare, base, batch, [size + 1, 2 * size])
    for symbol in dict.fromkeys(n for s in compare.sizes for n in s):
        if symbol is not None and symbol != batch and symbol.is_Symbol and compare.places(symbol):
            bound, at_one = _size(compare, calls, alone, symbol)
            fixed, not_one = fixed | bound, not_one | at_one
    if batch_dim == "auto" and not counted:  # time first, say
        counted = _counted_second(compare, base, outputs, fixed)
    together, reason = _together(compare, alone, fixed)
    fixed |= dict.fromkeys(together, reason) if reason else {}
    agreed = dict.fromkeys([shapes_of(alone), *reversed(compare.agreed)])
    branches = (*compare.equal, *_branches(compare, alone))
    fixed |= _of_one_size(compare, alone)
    not_one = {p: r for p, r in not_one.items() if p not in fixed}
    return Look(fixed, not_one, tuple(agreed), counted, branches)


def _size(
    compare: Comparison, calls: Sequence[list[Tensor]], tensors: Sequence[Tensor], symbol: Any
) -> tuple[dict[Place, str], dict[Place, str]]:
    """Why a size other than the batch is not free, and why it must not be 1."""
    _tie(compare, calls, tensors, symbol)
    places = compare.places(symbol)
    i, d = places[0]
    size = tensors[i].shape[d]
    not_one: dict[Place, str] = {}
    for one, outputs in _runs(compare, tensors, symbol, [1] if d == 0 else []):
        if reason := _reason(compare, one, outputs, places):
            not_one = dict.fromkeys(places, reason)
    sizes = [*(c[i].shape[d] for c in calls), size + 1, size - 1, 2 * size, size // 2]
    return _other(compare, tensors, symbol, sizes, calls), not_one


def _agrees_as_called(
    compare: Comparison, calls: Sequence[list[Tensor]], tensors: Sequence[Tensor], symbol: Any
) -> bool:
    """Whether the graph is right at the sizes of another call, all changed at once.

    The size of a mask, say, is the sum of two others: they change together, as the data show.
    """
    i, d = compare.places(symbol)[0]
    for call in calls:
        if call[i].shape[d] != tensors[i].shape[d]:
            with contextlib.suppress(Exception):  # the model does not take it with few samples
                other = compare.at(tensors, compare.sizes_of(call))
                return not _reason(compare, other, compare.expected(other), [])
    return False


def _branches(compare: Comparison, tensors: Sequence[Tensor]) -> tuple[str, ...]:
    """The conditions that are needed, after trying sizes that break those not known yet.

    Those that no size breaks at which the model runs are needed, too.
    """
    base = compare.sizes_of(tensors)
    symbols = set().union(*(c.free_symbols for c in compare.open))
    for size in SMALL:  # breaks many at once
        _try(compare, tensors, base | dict.fromkeys(symbols, size))
    for condition in [*compare.open]:
        for sizes in breaking(condition, base):
            if condition in compare.open:
                _try(compare, tensors, sizes)
    compare.needed += compare.open
    for several in compare.unexplained:
        if not set(several) & set(compare.needed):
            compare.needed += several
    compare.needed = [*dict.fromkeys(compare.needed)]
    places = {s: compare.places(s)[0] for c in compare.needed for s in c.free_symbols}
    return tuple(as_text(c, places) for c in compare.needed)


def _of_one_size(compare: Comparison, tensors: Sequence[Tensor]) -> dict[Place, str]:
    """Sizes of which the conditions that are needed leave no other: a kernel has that size, say."""
    sizes = compare.sizes_of(tensors)
    found = {symbol: c for c in compare.needed if (symbol := only(c, sizes)) is not None}
    return {
        place: f"forward depends on {as_text(c, {symbol: place})}"
        for symbol, c in found.items()
        for place in compare.places(symbol)
    }


def _try(compare: Comparison, tensors: Sequence[Tensor], sizes: Mapping[Any, int]) -> None:
    """Compare at these sizes, if the model takes them and any condition not known yet is broken."""
    if not any(broken(c, sizes) for c in compare.open):
        return
    with contextlib.suppress(Exception):
        inputs = compare.at(tensors, sizes)
        if _numel(inputs) <= max(LARGEST, LARGER * _numel(tensors)):
            compare.difference(inputs, compare.expected(inputs))


def _numel(tensors: Sequence[Tensor]) -> int:
    return sum(t.numel() for t in tensors)


def _together(
    compare: Comparison, tensors: Sequence[Tensor], fixed: Limits
) -> tuple[list[Place], str]:
    """All sizes that are free and have agreed at another value, at that value at once.

    The places of those but the first, and how the graph differs from the model there.
    """
    sizes: dict[Any, int] = {}
    places: list[Place] = []
    for symbol in dict.fromkeys(n for s in compare.sizes for n in s if n is not None):
        where = compare.places(symbol)
        i, d = where[0]
        others = {shapes[i][d] for shapes in compare.agreed} - {tensors[i].shape[d]}
        if others and symbol.is_Symbol and not fixed.keys() & set(where):
            places += where if sizes else []
            sizes[symbol] = max(others)
    if len(sizes) < 2:
        return [], ""
    try:
        other = compare.at(tensors, sizes)
        outputs = compare.expected(other)
    except Exception:  # the model does not take these together
        return [], ""
    return places, _reason(compare, other, outputs, places)


def _tie(
    compare: Comparison, calls: Sequence[list[Tensor]], tensors: Sequence[Tensor], symbol: Any
) -> None:
    """Change a size together with all that are the same, if the model takes no other size alone.

    The same in every call: sizes that the data have shown to differ are not tied.
    """
    have, seen = compare.sizes_of(tensors), [*map(compare.sizes_of, calls)]
    size = have[symbol]
    alike = {s for s, n in have.items() if n == size and all(c[s] == c[symbol] for c in seen)}
    others = [s for s in have if s in alike and s is not symbol and s.is_Symbol]
    if others and not any(_runs(compare, tensors, symbol, [size + 1, size - 1, 2 * size])):
        compare.tie(symbol, others)


def _few(
    compare: Comparison, calls: Sequence[list[Tensor]], batch: Any
) -> tuple[list[Tensor], Run]:
    """A call with few samples but more than one, where the model takes it, and its outputs."""
    first = calls[0]
    if batch is not None:
        _tie(compare, calls, first, batch)
        i = compare.places(batch)[0][0]
        size = first[i].shape[0]
        few = SEVERAL if size > 1 else 2
        if size == 1 and len(calls) > 1 and [t.shape for t in calls[1]] == [t.shape for t in first]:
            cut = {place[0] for place in compare.places(batch) if place[1] == 0}
            first = [torch.cat(ts) if n in cut else ts[0]
                     for n, ts in enumerate(zip(first, calls[1], strict=True))]  # fmt: skip
        if size != few:
            for run in _runs(compare, first, batch, [few]):
                if compare.allows(run[0], also_open=True):
                    return run
    try:
        return calls[0], compare.expected(calls[0])
    except Exception as e:
        raise DataError(f"the model itself does not take this call: {e}") from e


def _runs(
    compare: Comparison, tensors: Sequence[Tensor], symbol: Any, sizes: Sequence[int]
) -> Iterator[tuple[list[Tensor], Run]]:
    """The call at those other sizes at which the model itself runs, with its outputs."""
    i, d = compare.places(symbol)[0]
    for size in dict.fromkeys(sizes):
        if size < 1 or size == tensors[i].shape[d]:
            continue
        try:
            other = compare.at(tensors, {symbol: size})
            if not compare.allows(other):
                continue
            outputs = compare.expected(other)
        except Exception:  # the model does not take this size: nothing to compare
            continue
        yield other, outputs


def _other(
    compare: Comparison,
    tensors: Sequence[Tensor],
    symbol: Any,
    sizes: Sequence[int],
    calls: Sequence[list[Tensor]] = (),
) -> dict[Place, str]:
    """Why a size is not free: the first larger and smaller ones that the model takes tell.

    calls: those that tell where the model takes no other size alone.
    """
    places = compare.places(symbol)
    i, d = places[0]
    size = tensors[i].shape[d]
    runs = [
        next(_runs(compare, tensors, symbol, [s for s in sizes if (s > size) == larger]), None)
        for larger in (True, False)
    ]
    for other, outputs in filter(None, runs):
        if reason := _reason(compare, other, outputs, places):
            return dict.fromkeys(places, reason)
    if any(runs) or _agrees_as_called(compare, calls, tensors, symbol):
        return {}
    reason = f"the model itself ran at none of the other sizes tried ({', '.join(map(str, sizes))})"
    return dict.fromkeys(places, reason)


def _reason(
    compare: Comparison,
    tensors: Sequence[Tensor],
    outputs: Run,
    places: Sequence[Place],
) -> str:
    """How the graph differs from the model at this size; an empty string if it does not."""
    found = compare.difference(tensors, outputs)
    sizes = [f"at {tensors[i].shape[d]} " for i, d in places[:1]]
    return found and (
        f"{''.join(sizes)}the graph captured from the model differs from it: {found}. Its forward "
        "may loop over this size, or keep something made for one size"
    )


def _counted(compare: Comparison, batch: Any, outputs: Run, of_part: Run) -> BatchDims:
    """The dimension of each input that counts independent samples.

    The size `batch` does if the last samples alone give the last part of each output, or the same
    as all.
    """
    counts = tuple(s.index(batch) if batch in s else None for s in compare.sizes)
    whole, part = ([t for t in run.outputs if isinstance(t, Tensor)] for run in (outputs, of_part))
    for w, p in zip(whole, part, strict=False):
        if difference([_last(w, p.shape)], [p]) and difference([w], [p]):
            return ()
    return counts if compare.exact and len(whole) == len(part) else ()


def _last(whole: Tensor, shape: Sequence[int]) -> Tensor:
    """The last part of a tensor, where only one of its sizes is smaller."""
    smaller = [d for d, (n, m) in enumerate(zip(whole.shape, shape, strict=False)) if n != m]
    if (
        len(smaller) != 1
        or len(shape) != whole.dim()
        or shape[smaller[0]] > whole.shape[smaller[0]]
    ):
        return whole
    (d,) = smaller
    return whole.narrow(d, whole.shape[d] - shape[d], shape[d])


def _counted_second(
    compare: Comparison, tensors: Sequence[Tensor], outputs: Run, fixed: Limits
) -> BatchDims:
    """The same where the second dimension counts samples, not the first."""
    symbol = _symbol_at(compare, 1)
    if symbol is None or fixed.keys() & set(compare.places(symbol)):
        return ()
    _, of_part = next(_runs(compare, tensors, symbol, [1, 2]), (None, None))
    return _counted(compare, symbol, outputs, of_part) if of_part else ()


def _symbol_at(compare: Comparison, dimension: Any) -> Any:
    """The first free size in a dimension of the inputs; None if there is none."""
    sizes = (s[dimension] for s in compare.sizes if dimension is not None and len(s) > dimension)
    return next((n for n in sizes if n is not None), None)


def _explain(compare: Comparison, tensors: Sequence[Tensor], found: str) -> str:
    """Which module's output is the first to differ."""
    seen: dict[str, Any] = {}

    def hook(path: str) -> Any:
        return lambda module, args, output: seen.setdefault(path, output)

    with unchanged(compare.model):
        for path, module in compare.model.named_modules():
            if not [*module.children()]:
                module.register_forward_hook(hook(path))
        compare.run_model([t.clone() for t in tensors])
    last: dict[str, tuple[fx.Node, Any]] = {}
    observe_values(
        compare.module, tensors, lambda node, value: last.update({module_path(node): (node, value)})
    )
    first = next((last[p][0] for p, o in seen.items()
                  if p in last and difference([o], [last[p][1]])), None)  # fmt: skip
    where = f" The first to differ is {describe(first)}." if first else ""
    return (
        f"on the calibration data, the graph captured from {type(compare.model).__name__} differs "
        f"from the model: {found}.{where}\nOften forward depends on more than its "
        "arguments: a counter, a cache, random numbers of Python or numpy. Make that an argument."
    )
