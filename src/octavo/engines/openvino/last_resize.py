"""Interpolation at the end of a model, as products with matrices."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch.nn import functional as F

if TYPE_CHECKING:
    import openvino

LARGEST = 128  # pixels before, of either side: products of more take longer than interpolation


def resize_last_by_products(model: openvino.Model) -> None:
    """Rewrite bilinear interpolation that only outputs of the model read, of known sizes, in place.

    OpenVINO interpolates with the channels last, as its convolutions leave them, and then moves
    them in front for the output. At the end of a segmentation network this is much memory: the two
    take twice to six times as long as two products, whose result has the channels in front.
    """
    for node in model.get_ops():
        if node.get_type_name() == "Interpolate" and _is_last(node) and _is_bilinear(node):
            _replace(node)


def _is_last(node: openvino.Node) -> bool:
    readers = node.output(0).get_target_inputs()
    return all(r.get_node().get_type_name() == "Result" for r in readers)


def _is_bilinear(node: openvino.Node) -> bool:
    """Whether it interpolates the last two of four dimensions, and is small enough."""
    before, after = (v.get_partial_shape() for v in (node.input_value(0), node.output(0)))
    if before.is_dynamic or after.is_dynamic or len(before) != 4:
        return False
    resized = [b.get_length() for b in list(before)[2:]]
    is_linear = node.get_attributes()["mode"] == "linear_onnx"
    return is_linear and list(before)[:2] == list(after)[:2] and max(resized) <= LARGEST


def _replace(node: openvino.Node) -> None:
    import openvino.opset15 as ov

    align = node.get_attributes()["coordinate_transformation_mode"] == "align_corners"
    sizes = zip(list(node.input_value(0).shape)[2:], list(node.output(0).shape)[2:], strict=True)
    rows, columns = (ov.constant(_weights(*size, align)) for size in sizes)
    inner = ov.matmul(rows, node.input_value(0), False, False)
    product = ov.matmul(inner, columns, False, True)
    product.friendly_name = node.friendly_name
    for reader in node.output(0).get_target_inputs():
        reader.replace_source_output(product.output(0))


def _weights(before: int, after: int, align: bool) -> Any:
    """(after, before): how much of each pixel before is in each pixel after, as PyTorch has it."""
    one_hot = torch.eye(before)[None]
    weights = F.interpolate(one_hot, after, mode="linear", align_corners=align)
    return weights[0].T.contiguous().numpy()
