"""Bags of embeddings in ONNX without a loop, in which ONNX Runtime 1.32 ends the process."""

from __future__ import annotations

from typing import Any

SUM, MEAN, MAX = range(3)  # PyTorch's numbers
INT64 = 7  # ONNX's


def embedding_bag(
    weight: Any,
    indices: Any,
    offsets: Any,
    scale_grad_by_freq: bool = False,
    mode: int = SUM,
    sparse: bool = False,
    per_sample_weights: Any = None,
    include_last_offset: bool = False,
    padding_idx: int | None = None,
) -> Any:
    """Rows of `weight`, added, averaged or the largest of each bag; bags start at `offsets`.

    Each row is scattered to the bag in which its position lies. Returns four values as PyTorch
    does, of which only the first is read.
    """
    from onnxscript import opset21

    op: Any = opset21

    def number(value: float) -> Any:
        return op.Constant(value_float=value)

    def integers(*values: int) -> Any:
        return op.Constant(value_ints=values)

    def scatter(start: float, width: Any, values: Any, reduction: str) -> Any:
        shape = op.Concat(bags, width, axis=0)
        return op.ScatterND(op.Expand(number(start), shape), bag, values, reduction=reduction)

    bags, first, one = op.Shape(offsets), op.Constant(value_int=0), op.Constant(value_int=1)
    positions = op.Unsqueeze(op.Range(first, op.Size(indices), one), integers(1))
    begun = op.GreaterOrEqual(positions, op.Cast(op.Unsqueeze(offsets, integers(0)), to=INT64))
    bag = op.Sub(op.ReduceSum(op.Cast(begun, to=INT64), integers(1), keepdims=1), one)
    counts = op.Expand(number(1.0), op.Concat(op.Shape(indices), integers(1), axis=0))
    if padding_idx is not None and padding_idx >= 0:
        same = op.Equal(op.Cast(indices, to=INT64), op.Constant(value_int=padding_idx))
        counts = op.Where(op.Unsqueeze(same, integers(1)), number(0.0), counts)
    rows, width = op.Gather(weight, indices), op.Shape(weight, start=1)
    size = scatter(0.0, integers(1), counts, "add")
    if mode == MAX:
        rows = op.Where(op.Greater(counts, number(0.0)), rows, number(float("-inf")))
        largest = scatter(float("-inf"), width, rows, "max")
        result = op.Where(op.Greater(size, number(0.0)), largest, number(0.0))
    else:
        if per_sample_weights is not None:
            counts = op.Mul(counts, op.Unsqueeze(per_sample_weights, integers(1)))
        result = scatter(0.0, width, op.Mul(rows, counts), "add")
    if mode == MEAN:
        result = op.Div(result, op.Max(size, number(1.0)))
    if include_last_offset:  # what comes after it is in no bag
        result = op.Slice(result, integers(0), integers(-1), integers(0))
    # torch.onnx notes types and numbers of dimensions of all four; what is not read is left out
    unread = [op.Squeeze(op.Cast(v, to=INT64), integers(1)) for v in (bag, size, size)]
    return result, *unread[:2], op.Cast(result, to=INT64) if mode == MAX else unread[2]
