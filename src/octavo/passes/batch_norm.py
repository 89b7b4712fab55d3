"""Batch norm is a multiply and an add per channel; most are folded into a convolution."""

from typing import Any

import torch
from torch import Tensor, fx

from ..graph.builder import NodeBuilder
from ..graph.names import own_path
from ..graph.notes import note_folded_batch_norm
from ..graph.operators import is_operator, operator_of
from ..graph.tensors import (
    along,
    attribute,
    attribute_node,
    is_constant,
    new_attribute,
    value_of,
)

aten = torch.ops.aten

BATCH_NORMS = {aten.batch_norm.default, aten._native_batch_norm_legit_no_training.default}


def fold_batch_norm(module: fx.GraphModule) -> None:
    """conv -> batch_norm becomes a conv with other weights.

    A convolution or batch norm module called from several places is folded per pair, and a pair
    that occurs twice shares the new weights.
    """
    folded: dict[tuple, tuple[str, str]] = {}
    for node in module.graph.nodes:
        if node.target not in BATCH_NORMS or not has_running_statistics(node):
            continue
        conv = node.args[0]
        if operator_of(conv).weight_axis is None or len(conv.users) != 1:
            continue
        if not all(a is None or is_constant(a) for a in conv.args[1:3]):
            continue  # computed from others of the model's tensors, as with weight normalization
        if is_operator(conv, "linear") and value_of(conv).dim() != 2:
            continue  # the channel axis of batch norm is 1, of linear the last
        key = tuple(
            a.target if isinstance(a, fx.Node) else a for a in conv.args[1:3] + node.args[1:]
        )
        with module.graph.inserting_before(conv):
            if key not in folded:
                scale, shift = affine(module, node)
                weight, bias = _folded(module, conv, scale, shift)
                path = f"folded.{conv.name}"
                new_attribute(module, f"{path}.weight", weight)
                new_attribute(module, f"{path}.bias", bias)
                folded[key] = f"{path}.weight", f"{path}.bias"
            weight_node, bias_node = (attribute_node(module, p) for p in folded[key])
        conv.args = (conv.args[0], weight_node, bias_node, *conv.args[3:])
        note_folded_batch_norm(conv, *_in_training(module, node))
        replace_output(node, conv)


def _in_training(module: fx.GraphModule, node: fx.Node) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of each channel of a batch norm's output in training."""
    weight, bias = (
        attribute(module, a.target).detach() if isinstance(a, fx.Node) else None
        for a in node.args[1:3]
    )
    zeros = torch.zeros_like(attribute(module, node.args[4].target))
    return zeros if bias is None else bias, zeros + 1 if weight is None else weight.abs()


def has_running_statistics(node: fx.Node) -> bool:
    """Whether a batch norm takes mean and variance from the model, not from its input."""
    if node.target is aten.batch_norm.default and node.args[5]:
        return False
    return all(isinstance(a, fx.Node) and a.op == "get_attr" for a in node.args[3:5])


def replace_output(node: fx.Node, value: fx.Node) -> None:
    """Replace `node` (or its item 0, where it returns a tuple) by `value` for its consumers."""
    if node.target is aten.batch_norm.default:
        node.replace_all_uses_with(value)
        return
    for item in list(node.users):
        item.replace_all_uses_with(value)


def affine(module: fx.GraphModule, node: fx.Node) -> tuple[Tensor, Tensor]:
    """scale and shift, float64, with batch_norm(x) = x * scale + shift per channel."""
    weight, bias, mean, var = (
        attribute(module, a.target).detach().double() if isinstance(a, fx.Node) else None
        for a in node.args[1:5]
    )
    eps = node.args[7] if node.target is aten.batch_norm.default else node.args[6]
    assert mean is not None and var is not None
    scale = torch.rsqrt(var + eps)
    scale = scale if weight is None else scale * weight
    shift = -mean * scale
    return scale, shift if bias is None else shift + bias


def _folded(
    module: fx.GraphModule, conv: fx.Node, scale: Tensor, shift: Tensor
) -> tuple[Tensor, Tensor]:
    weight = attribute(module, conv.args[1].target).detach()
    axis = operator_of(conv).weight_axis
    groups = weight.shape[0] and scale.numel() // weight.shape[axis] if axis == 1 else 1
    if groups > 1:  # transposed: (in, out / groups, ...), the groups lie along axis 0
        per_row = scale.view(groups, -1).repeat_interleave(weight.shape[0] // groups, 0)
        factor = per_row.view(weight.shape[0], -1, *[1] * (weight.dim() - 2))
    else:
        factor = along(scale, axis, weight.dim())
    bias = conv.args[2]
    if bias is not None:
        shift = shift + attribute(module, bias.target).detach().double() * scale
    return (weight * factor).to(weight.dtype), shift.to(weight.dtype)


def batch_norm_to_affine(module: fx.GraphModule) -> None:
    """A batch norm that could not be folded backwards becomes x * scale + shift."""
    for node in module.graph.nodes:
        if node.target not in BATCH_NORMS or not has_running_statistics(node):
            continue
        x = node.args[0]
        dtype = attribute(module, node.args[3].target).dtype
        shape = [-1] + [1] * (x.meta["val"].dim() - 2)
        scale, shift = (t.to(dtype).view(shape) for t in affine(module, node))
        with module.graph.inserting_before(node):
            s = new_attribute(module, own_path("affine", node.name, "scale"), scale)
            b = new_attribute(module, own_path("affine", node.name, "shift"), shift)
            emit = NodeBuilder(module.graph, node)
            product = emit.node(aten.mul.Tensor, (x, s), {}, x.meta["val"])
            total = emit.node(aten.add.Tensor, (product, b), {"alpha": 1}, x.meta["val"])
        replace_output(node, total)


def fold_affine_forward(module: fx.GraphModule) -> None:
    """x * scale + shift read only by unpadded convolutions or linears moves into their weights.

    With zero padding it would not be exact: the padding is 0 after the shift, not before it.
    """
    for node in module.graph.nodes:
        found = _affine_before(module, node)
        if found is None:
            continue
        x, scale, shift = found
        weight = attribute(module, node.args[1].target).detach()
        axis_one = [1, -1] + [1] * (weight.dim() - 2)
        new = (weight.double() * scale.view(axis_one)).to(weight.dtype)
        bias = (weight.double() * shift.view(axis_one)).flatten(1).sum(1)
        if node.args[2] is not None:
            bias = bias + attribute(module, node.args[2].target).detach().double()
        with module.graph.inserting_before(node):
            w = new_attribute(module, f"folded.{node.name}.weight", new)
            b = new_attribute(module, f"folded.{node.name}.bias", bias.to(weight.dtype))
        node.args = (x, w, b, *node.args[3:])


def _affine_before(module: fx.GraphModule, node: fx.Node) -> tuple[Any, Tensor, Tensor] | None:
    """(x, scale, shift) where node is conv(x * scale + shift) and can absorb both."""
    if operator_of(node).weight_axis != 0 or node.args[1].op != "get_attr":
        return None
    if node.target is not aten.linear.default:
        padding, groups = node.args[4], node.args[6]
        if groups != 1 or padding not in ([0], [0, 0], [0, 0, 0], "valid"):
            return None
    add = node.args[0]
    if add.target is not aten.add.Tensor or len(add.users) != 1:
        return None
    mul = add.args[0]
    if not isinstance(mul, fx.Node) or mul.target is not aten.mul.Tensor or len(mul.users) != 1:
        return None
    constants = [mul.args[1], add.args[1]]
    if not all(isinstance(c, fx.Node) and c.op == "get_attr" for c in constants):
        return None
    channels = attribute(module, node.args[1].target).shape[1]
    values = [attribute(module, c.target).detach().double() for c in constants]
    is_linear = node.target is aten.linear.default
    shape = [channels] if is_linear else [channels] + [1] * (mul.meta["val"].dim() - 2)
    if any(list(v.shape) not in (shape, [1, *shape]) for v in values):
        return None
    return mul.args[0], values[0].flatten(), values[1].flatten()
