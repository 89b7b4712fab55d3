"""Dynamic quantization in OpenVINO: what it rounds by itself, and what is written out.

OpenVINO rounds the input of a linear layer whose weight it keeps as integers, if the property
DYNAMIC_QUANTIZATION_GROUP_SIZE says so: in groups of that size, with the same arithmetic as
`octavo::quantize_groups`. It has one size for the whole model: dynamic layers of other sizes are
computed in float, on inputs rounded by operators. Layers narrower than a group it leaves in float.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import openvino.opset15 as ov
from openvino import Output
from torch import fx

from ...graph import ops
from ...graph.operators import is_operator
from ...graph.qdq_checks import dynamic_input, is_stored_rows
from ...graph.tensors import attribute, is_constant
from ..qdq import Dequantize
from .values import ints, rank

PROPERTY = "DYNAMIC_QUANTIZATION_GROUP_SIZE"
UNIT = 16  # of which OpenVINO takes multiples only


def group_size_of(module: fx.GraphModule) -> int:
    """The group size that most dynamic inputs have; 0 if there are none."""
    nodes = module.graph.find_nodes(op="call_function", target=ops.dequantize_groups)
    found = [dynamic for n in nodes if (dynamic := dynamic_input(n))]
    sizes = Counter(size for _, size in found if size % UNIT == 0)
    return max(sizes, key=lambda size: sizes[size]) if sizes else 0


def is_rows(module: fx.GraphModule, node: fx.Node) -> bool:
    """Whether a node dequantizes rows of a table, a scale for each row."""
    if node.target is not ops.dequantize_groups or not is_stored_rows(node):
        return False
    gather: Any = node.args[0]
    table = gather.args[0]
    return is_constant(table) and attribute(module, table.target).shape[-1] == node.args[2]


def computes_in_float(module: fx.GraphModule, weight: fx.Node, group_size: int) -> bool:
    """Whether an int8 weight must become float, since OpenVINO would round what it meets.

    group_size: of the model's dynamic inputs, 0 for none.
    """
    for reader in weight.users:
        x: Any = reader.args[0]
        dynamic = dynamic_input(x)
        if Dequantize.of(module, x) is None and (dynamic is None or dynamic[1] != group_size):
            return group_size > 0 or not is_operator(reader, "linear")
    return False


def fake_quantize_groups(x: Output, group_size: int) -> Output:
    """`octavo::dequantize_groups` of `octavo::quantize_groups`, by OpenVINO's operators."""
    channels = x.get_partial_shape()[rank(x) - 1].get_length()
    lead = [0] * (rank(x) - 1)
    padding = -channels % group_size
    whole = ov.pad(x, ints([*lead, 0]), ints([*lead, padding]), "constant", np.float32(0))
    groups = ov.reshape(whole, ints([*lead, -1, group_size]), True)
    largest = ov.reduce_max(ov.abs(groups), ints([rank(x)]), True)
    scale = ov.divide(largest, np.float32(ops.LARGEST))
    scale = ov.select(ov.equal(scale, np.float32(0)), np.float32(1), scale)
    q = ov.clamp(ov.round(ov.divide(groups, scale), "half_to_even"), -ops.LARGEST, ops.LARGEST)
    back = ov.reshape(ov.multiply(q, scale), ints([*lead, channels + padding]), True)
    if not padding:
        return back.output(0)
    return ov.slice(back, ints([0]), ints([channels]), ints([1]), ints([rank(x) - 1])).output(0)
