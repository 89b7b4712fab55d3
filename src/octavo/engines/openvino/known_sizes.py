"""Operators that OpenVINO computes faster in another form, which the sizes of an image decide."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch.nn import functional as F

if TYPE_CHECKING:
    import openvino

LARGEST = 128  # pixels before, of either side: products of more take longer than interpolation
ALIGNS = {"half_pixel": False, "align_corners": True}  # OpenVINO's names of PyTorch's two ways


def rewrite_for_known_sizes(model: openvino.Model) -> None:
    """Rewrite, in place, what sizes that are known allow: each function below says what and why."""
    for node in model.get_ops():
        rewrite = REWRITES.get(node.get_type_name())
        rewritten = rewrite(node) if rewrite else None
        if rewritten is not None:
            rewritten.friendly_name = node.friendly_name
            for reader in node.output(0).get_target_inputs():
                reader.replace_source_output(rewritten.output(0))


def _pool_rounded_down(node: openvino.Node) -> openvino.Node | None:
    """Max pooling whose number of windows is rounded down, with the padding that this needs.

    OpenVINO has no int8 kernel for numbers of windows that are rounded up, and then computes in
    float what reads the output, too.
    """
    import openvino.opset15 as ov

    before, after = _spatial(node.input_value(0)), _spatial(node.output(0))
    settings = node.get_attributes()
    rounds_up = settings["rounding_type"] == "ceil_torch"
    if before is None or after is None or not rounds_up or node.output(1).get_target_inputs():
        return None
    steps, gaps, begin, window = (
        settings[name] for name in ("strides", "dilations", "pads_begin", "kernel")
    )
    axes = zip(before, after, steps, gaps, begin, window, strict=True)
    end = [
        max((count - 1) * step + gap * (points - 1) + 1 - size - pad, 0)
        for size, count, step, gap, pad, points in axes
    ]
    return ov.max_pool(node.input_value(0), steps, gaps, begin, end, window, "floor")


def _last_resize_by_products(node: openvino.Node) -> openvino.Node | None:
    """Bilinear interpolation that only outputs of the model read, as products with matrices.

    OpenVINO interpolates with the channels last, as its convolutions leave them, and then moves
    them in front for the output. At the end of a segmentation network this is much memory: the two
    take twice to six times as long as two products, whose result has the channels in front.
    """
    import openvino.opset15 as ov

    before, after = _spatial(node.input_value(0)), _spatial(node.output(0))
    settings = node.get_attributes()
    readers = node.output(0).get_target_inputs()
    if (
        before is None
        or after is None
        or len(before) != 2
        or settings["mode"] != "linear_onnx"
        or settings["coordinate_transformation_mode"] not in ALIGNS
        or max(before) > LARGEST
        or any(r.get_node().get_type_name() != "Result" for r in readers)
    ):
        return None
    align = ALIGNS[settings["coordinate_transformation_mode"]]
    sizes = zip(before, after, strict=True)
    rows, columns = (ov.constant(_weights(*size, align)) for size in sizes)
    inner = ov.matmul(rows, node.input_value(0), False, False)
    return ov.matmul(inner, columns, False, True)


def _spatial(value: openvino.Output) -> Sequence[int] | None:
    """Sizes of the dimensions after batch and channels; None if one of them is free."""
    shape = value.get_partial_shape()
    if shape.rank.is_dynamic or any(d.is_dynamic for d in list(shape)[2:]):
        return None
    return [d.get_length() for d in list(shape)[2:]]


def _weights(before: int, after: int, align: bool) -> Any:
    """(after, before): how much of each pixel before is in each pixel after, as PyTorch has it."""
    one_hot = torch.eye(before)[None]
    weights = F.interpolate(one_hot, after, mode="linear", align_corners=align)
    return weights[0].T.contiguous().numpy()


REWRITES = {"MaxPool": _pool_rounded_down, "Interpolate": _last_resize_by_products}
