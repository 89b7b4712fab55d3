"""Dynamic linear layers for ONNX: MatMulNBits, ONNX Runtime's own operator, or float.

With `accuracy_level` 4, ONNX Runtime rounds the inputs of a MatMulNBits to int8 in blocks along the
channels, with the same arithmetic as `octavo::quantize_groups`. Blocks of 16 to 256 channels, a
power of 2, run so; other layers are computed in float, on inputs rounded by ordinary operators.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, fx

from ...graph import ops
from ...graph.names import own_path
from ...graph.qdq_checks import dynamic_input
from ...graph.tensors import attribute, new_attribute
from ..qdq import Dequantize

aten = torch.ops.aten
BLOCKS = (16, 32, 64, 128, 256)


def dynamic_linear(
    x: Tensor, packed: Tensor, scales: Tensor, bias: Tensor | None, channels: int
) -> Tensor:
    """A linear layer on inputs that ONNX Runtime rounds; for tracing only, it computes nothing.

    packed: (outputs, blocks, size) uint8, 128 more than the weight. scales: (outputs, blocks).
    """
    outputs, _, block = packed.shape
    y = torch.onnx.ops.symbolic(
        "com.microsoft::MatMulNBits",
        (x, packed, scales),
        {"K": channels, "N": outputs, "bits": 8, "block_size": block, "accuracy_level": 4},
        dtype=torch.float32,
        shape=(*x.shape[:-1], outputs),
        version=1,
    )
    return y if bias is None else y + bias


def replace_dynamic_layers(module: fx.GraphModule) -> None:
    """Put `dynamic_linear` in place of the layers that ONNX Runtime runs in integers."""
    for node in module.graph.find_nodes(op="call_function", target=aten.linear.default):
        dynamic, weight = dynamic_input(node.args[0]), Dequantize.of(module, node.args[1])
        if dynamic is None or weight is None or not weight.is_weight or weight.axis != 0:
            continue
        x, size = dynamic
        integers = attribute(module, weight.q.target)
        channels = integers.shape[1]
        block = next((b for b in BLOCKS if b == size or b >= channels == size), None)
        if block is None:
            continue
        path = own_path("packed", node.name)
        blocks = F.pad(integers.short() + 128, (0, -channels % block), value=128)
        packed = blocks.to(torch.uint8).unflatten(1, (-1, block))
        scales = weight.scale[:, None].repeat(1, packed.shape[1])
        with module.graph.inserting_before(node):
            tensors = [
                new_attribute(module, f"{path}_{name}", t)
                for name, t in (("integers", packed), ("scales", scales))
            ]
            args = (x, *tensors, (*node.args, None)[2], channels)
            new = module.graph.call_function(dynamic_linear, args)
        new.meta = dict(node.meta)
        node.replace_all_uses_with(new)
        module.graph.erase_node(node)


# What is left of the operators, as they are defined.
TRACED: dict[Any, Any] = {
    ops.dynamic_scale: ops.find_dynamic_scale,
    ops.quantize_groups: ops.round_groups,
    ops.dequantize_groups: ops.scale_groups,
}
