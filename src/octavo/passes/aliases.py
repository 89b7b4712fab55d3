"""Other names of the operators that have rules: concat is cat, swapaxes is transpose.

All of these compute the same values. Most differ by name alone; the others are written with
operators that have rules, where the sizes that this takes are known.
"""

from __future__ import annotations

import itertools
import operator
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import fx
from torch._ops import OpOverload

from ..graph.builder import NodeBuilder
from ..graph.tensors import value_of

aten = torch.ops.aten
Call = tuple[Any, tuple[Any, ...]]  # an operator and its arguments

# Operator -> others with the same arguments; copies are among them, since nothing writes to them.
NAMES = {
    "abs": "absolute",
    "cat": "concat concatenate",
    "channel_shuffle": "native_channel_shuffle",
    "chunk": "unsafe_chunk",
    "clamp": "clip",
    "diagonal": "diagonal_copy",
    "div": "divide true_divide",
    "expand": "broadcast_to expand_copy",
    "matmul": "linalg_matmul mm",
    "movedim": "moveaxis",
    "mul": "multiply",
    "narrow": "narrow_copy",
    "neg": "negative",
    "permute": "permute_copy",
    "reshape": "view_copy",
    "select": "select_copy",
    "sigmoid": "special_expit",
    "slice": "slice_copy",
    "softmax": "special_softmax",
    "split": "split_copy unsafe_split",
    "split_with_sizes": "split_with_sizes_copy unsafe_split_with_sizes",
    "squeeze": "squeeze_copy",
    "sub": "subtract",
    "t": "t_copy",
    "transpose": "swapaxes swapdims transpose_copy",
    "unbind": "unbind_copy",
    "unfold": "unfold_copy",
    "unsqueeze": "unsqueeze_copy",
}


def _overloads(name: str) -> dict[Any, OpOverload]:
    """The overloads of an operator by the arguments that they need."""
    packet = getattr(aten, name)
    found: dict[Any, OpOverload] = {}
    for overload in (getattr(packet, o) for o in packet.overloads()):
        arguments = overload._schema.arguments
        positional = [str(a.type) for a in arguments if not a.kwarg_only]
        needed = [a.name for a in arguments if a.kwarg_only and not a.has_default_value()]
        found.setdefault((*positional, *needed), overload)
    return found


SAME: dict[Any, OpOverload] = {
    alias: overload
    for name, aliases in NAMES.items()
    for key, overload in _overloads(name).items()
    for other in aliases.split()
    if (alias := _overloads(other).get(key)) is not None
}


def rename_aliases(module: fx.GraphModule) -> None:
    """Replace the operators of `SAME` and of `REWRITES`."""
    for node in module.graph.nodes:
        if node.target in SAME:
            node.target = SAME[node.target]
        elif (rewrite := REWRITES.get(node.target)) is not None:
            with module.graph.inserting_before(node):
                call = rewrite(NodeBuilder(module.graph, node), *node.args)
            if call is not None:
                (node.target, node.args), node.kwargs = call, {}
        elif (dims := _maximum_over(node)) and all(_is_first(user) for user in node.users):
            keeps = node.target is not aten.max.dim or node.args[2]
            node.target, node.args = aten.amax.default, (node.args[0], dims, keeps)
            node.meta["val"] = node.meta["val"][0]
            for first in list(node.users):
                first.replace_all_uses_with(node)
                module.graph.erase_node(first)


# ---- maxima whose positions nothing reads


def _maximum_over(node: fx.Node) -> list[int]:
    """The dimensions over which the first output of a node is the maximum; none for others."""
    if node.target is aten.max.dim:
        return [node.args[1]]  # type: ignore[list-item]
    sizes = node.args[1] if node.target in ADAPTIVE else None
    ones = isinstance(sizes, Sequence) and all(size == 1 for size in sizes)
    return [-1, -2, -3][: len(sizes)] if ones else []  # type: ignore[arg-type]


ADAPTIVE = {getattr(aten, f"adaptive_max_pool{d}d").default for d in (1, 2, 3)}


def _is_first(part: fx.Node) -> bool:
    return part.target is operator.getitem and not part.args[1]


# ---- joining


def _rank(x: fx.Node) -> int:
    return int(value_of(x).dim())


def _stack(emit: NodeBuilder, tensors: Sequence[fx.Node], dim: int = 0) -> Call:
    dim %= _rank(tensors[0]) + 1
    return aten.cat.default, ([emit(aten.unsqueeze.default, x, dim) for x in tensors], dim)


def _joined_along(dim: int) -> Callable[..., Call | None]:
    """hstack, vstack, dstack: cat along a dimension that tensors of lower rank are given first."""

    def rewrite(emit: NodeBuilder, tensors: Sequence[fx.Node]) -> Call | None:
        ranks = {_rank(x) for x in tensors}
        if len(ranks) > 1 or 0 in ranks:
            return None
        rank = ranks.pop()
        if rank > dim:
            return aten.cat.default, (tensors, dim)
        return _stack(emit, tensors, dim) if rank == dim else None

    return rewrite


def _hstack(emit: NodeBuilder, tensors: Sequence[fx.Node]) -> Call | None:
    flat = all(_rank(x) == 1 for x in tensors)
    return (aten.cat.default, (tensors, 0)) if flat else _joined_along(1)(emit, tensors)


def _vstack(emit: NodeBuilder, tensors: Sequence[fx.Node]) -> Call | None:
    flat = all(_rank(x) == 1 for x in tensors)
    return _stack(emit, tensors, 0) if flat else _joined_along(0)(emit, tensors)


# ---- splitting


def _sections(emit: NodeBuilder, x: fx.Node, sections: int, dim: int = 0) -> Call | None:
    size = value_of(x).shape[dim]
    if not (isinstance(size, int) and isinstance(sections, int)):
        return None
    small, larger = divmod(size, sections)
    sizes = [small + (i < larger) for i in range(sections)]
    return aten.split_with_sizes.default, (x, sizes, dim)


def _indices(emit: NodeBuilder, x: fx.Node, indices: Sequence[Any], dim: int = 0) -> Call | None:
    size = value_of(x).shape[dim]
    if not (isinstance(size, int) and all(isinstance(i, int) for i in indices)):
        return None
    ends = [0, *(min(max(i + size if i < 0 else i, 0), size) for i in indices), size]
    sizes = [end - start for start, end in itertools.pairwise(ends)]
    # parts that overlap are no split
    return (aten.split_with_sizes.default, (x, sizes, dim)) if min(sizes) >= 0 else None


def _along(dim: int, split: Callable[..., Call | None]) -> Callable[..., Call | None]:
    """hsplit, vsplit, dsplit."""
    return lambda emit, x, parts: split(emit, x, parts, min(dim, _rank(x) - 1))


# ---- repeating and turning


def _tile(emit: NodeBuilder, x: fx.Node, repeats: Sequence[Any]) -> Call:
    missing = _rank(x) - len(repeats)
    return aten.repeat.default, (x, [1] * missing + list(repeats))


def _repeat_interleave(
    emit: NodeBuilder, x: fx.Node, repeats: Any, dim: int | None = None, size: Any = None
) -> Call:
    if dim is None:
        x, dim = emit(aten.flatten.using_ints, x, 0, -1), 0
    dim %= _rank(x)
    apart = emit(aten.unsqueeze.default, x, dim + 1)
    sizes = [repeats if d == dim + 1 else -1 for d in range(_rank(apart))]
    return aten.flatten.using_ints, (emit(aten.expand.default, apart, sizes), dim, dim + 1)


def _rot90(emit: NodeBuilder, x: fx.Node, k: int = 1, dims: Sequence[int] = (0, 1)) -> Call:
    k, (first, second) = k % 4, dims
    if k == 2:
        return aten.flip.default, (x, [first, second])
    if k:
        x = emit(aten.flip.default, x, [second if k == 1 else first])
        return aten.transpose.int, (x, first, second)
    return aten.reshape.default, (x, [emit.size(x, d) for d in range(_rank(x))])


def _transposed(emit: NodeBuilder, x: fx.Node) -> Call | None:
    return None if value_of(x).is_complex() else (aten.transpose.int, (x, -2, -1))


def _reversed(emit: NodeBuilder, x: fx.Node) -> Call:
    return aten.permute.default, (x, list(range(_rank(x)))[::-1])


def _reshape_as(emit: NodeBuilder, x: fx.Node, other: fx.Node) -> Call:
    return aten.reshape.default, (x, [emit.size(other, d) for d in range(_rank(other))])


def _take_along(emit: NodeBuilder, x: fx.Node, index: fx.Node, dim: int | None = None) -> Call:
    if dim is None:
        return aten.take.default, (x, emit(aten.flatten.using_ints, index, 0, -1))
    shapes = [value_of(n).shape for n in (x, index)]
    sizes: list[list[Any]] = [[], []]  # of 1 in one of them: as in the other
    for d, both in enumerate(zip(*shapes, strict=True)):
        for mine, other, size in ((0, index, both[0]), (1, x, both[1])):
            same = d == dim % len(shapes[0]) or not (isinstance(size, int) and size == 1)
            sizes[mine].append(-1 if same else emit.size(other, d))
    x, index = (emit(aten.expand.default, *each) for each in zip((x, index), sizes, strict=True))
    return aten.gather.default, (x, dim, index)


REWRITES: dict[Any, Callable[..., Call | None]] = {
    aten.stack.default: _stack,
    aten.hstack.default: _hstack,
    aten.vstack.default: _vstack,
    aten.row_stack.default: _vstack,
    aten.dstack.default: _joined_along(2),
    aten.column_stack.default: _joined_along(1),
    aten.tensor_split.sections: _sections,
    aten.tensor_split.indices: _indices,
    aten.hsplit.int: _along(1, _sections),
    aten.hsplit.array: _along(1, _indices),
    aten.vsplit.int: _along(0, _sections),
    aten.vsplit.array: _along(0, _indices),
    aten.dsplit.int: _along(2, _sections),
    aten.dsplit.array: _along(2, _indices),
    aten.tile.default: _tile,
    aten.repeat_interleave.self_int: _repeat_interleave,
    aten.rot90.default: _rot90,
    aten.take_along_dim.default: _take_along,
    aten.fliplr.default: lambda emit, x: (aten.flip.default, (x, [1])),
    aten.flipud.default: lambda emit, x: (aten.flip.default, (x, [0])),
    aten.mT.default: _transposed,
    aten.mH.default: _transposed,
    aten.adjoint.default: _transposed,
    aten.matrix_H.default: _transposed,
    aten.numpy_T.default: _reversed,
    aten.ravel.default: lambda emit, x: (aten.flatten.using_ints, (x, 0, -1)),
    aten.reshape_as.default: _reshape_as,
}
