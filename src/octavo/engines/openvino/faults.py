"""Where OpenVINO's CPU plugin computes other numbers than its operators say, or ends the process.

Each function tells from the graph whether a fault may strike; `build` then writes the operator in a
form that it spares.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import openvino
from openvino import Output
from torch import Tensor, fx
from torch.utils import _pytree as pytree

from ...graph import ops
from ...graph.operators import Kind, is_operator, operator_of

ELEMENTWISE = {
    *("Abs", "Add", "Ceiling", "Clamp", "Convert", "Divide", "Elu", "Erf", "Exp", "FakeQuantize"),
    *("Floor", "FloorMod", "Gelu", "Greater", "GreaterEqual", "HSigmoid", "HSwish", "HardSigmoid"),
    *("Less", "LessEqual", "Maximum", "Minimum", "Mish", "Mod", "Multiply", "Negative", "PRelu"),
    *("Power", "Relu", "Round", "Select", "Sigmoid", "SoftPlus", "Sqrt", "SquaredDifference"),
    *("Subtract", "Swish", "Tanh"),
}
SHIFTS = ("Add", "Subtract")
LAYOUTS = {"Broadcast", "Reshape", "Squeeze", "Transpose", "Unsqueeze"}
PASSED_BY_NO_SCALE = {"Constant", "MVN", "Parameter", "Softmax"} | ELEMENTWISE - {
    *("Clamp", "Convert", "PRelu", "Relu", *SHIFTS)
}


def joins_sequence(product: fx.Node) -> bool:
    """Whether OpenVINO may safely join a product of two dimensions with those before and after it.

    It makes one kernel of small ones in sequence, if they have two dimensions. There it ignores the
    channels' scales of one that is quantized anew right away, for want of a bias between, or since
    it moved the bias: numbers come out that have nothing to do with the layer.
    """
    has_bias = product.args[2:] not in ((), (None,))
    return has_bias and all(_ends_scale(u) or _is_quantized(u) for u in _readers(product))


def doubles_scale(product: fx.Node) -> bool:
    """Whether OpenVINO may apply the scales of a product twice.

    It does so at dynamic shapes where several float operators read a convolution and no bias is
    between, or a product of two values, or a multiple of it.
    """
    users = _readers(product)
    if is_operator(product, "matmul", "bmm"):
        is_scaled = len(users) == 1 and is_operator(users[0], "mul", "div")
        return _times_read(product) > 1 or (is_scaled and _times_read(users[0]) > 1)
    if not operator_of(product).name.startswith("conv"):
        return False
    return product.args[2] is None and not (len(users) == 1 and _ends_scale(users[0]))


def pads_and_crashes(x: Output, kernel: Sequence[int]) -> bool:
    """Whether OpenVINO may end the process in a convolution that has taken over a Pad before it.

    It does so in int8 for kernels of one point and a batch of 1, with more on one side than on the
    other.
    """
    pad = x.get_node()
    is_pad = pad.get_type_name() == "Pad" and pad.get_attributes()["pad_mode"] == "constant"
    return is_pad and max(kernel) == 1


def joins_attention(value: Output) -> bool:
    """Whether OpenVINO may end the process in joining an operator with the attention before it.

    It does so while compiling, where an elementwise operator reads a product with what a softmax
    made, and a second tensor that elementwise operators made, and several operators read it.
    """
    node = value.get_node()
    others = [v for v in node.input_values() if not _is_constant(v)]
    return (
        len(others) > 1
        and node.get_type_name() in ELEMENTWISE
        and any(_sources(p.input_value(0), "Softmax") for p in _sources(value, "MatMul"))
    )


def saturates(kernel: Sequence[int], settings: Mapping[str, Any]) -> bool:
    """Whether OpenVINO may add products of an int8 transposed convolution in 16 bits.

    Its sums end at 32,767 where both stride and dilation are above 1, and where the padding cuts
    off more than the kernel adds at a border.
    """
    cut = zip(settings["pads_begin"], kernel, strict=True)
    return max(settings["dilations"]) > 1 or any(p >= k for p, k in cut)


def leaves_gaps(kernel: Sequence[int], settings: Mapping[str, Any]) -> bool:
    """Whether numbers of an int8 transposed convolution may be what was in memory before.

    OpenVINO does not clear what no weight reaches: the gaps where the stride is above the kernel's
    size, and the last numbers of an output padding above the padding.
    """
    gaps = zip(kernel, settings["strides"], strict=True)
    ends = zip(settings["output_padding"], settings["pads_end"], strict=True)
    return any(k < s for k, s in gaps) or any(extra > p for extra, p in ends)


def forgets_sign(node: fx.Node, operands: Iterable[Any]) -> bool:
    """Whether OpenVINO may lose the signs of negative numbers that `node` multiplies with.

    It divides the range of a quantization by them, and takes the ends for each other; and it makes
    them scales of a product without a bias, also if an activation is between. There may be other
    activations in between, and operators that move values.
    """
    negative = is_operator(node, "neg") or any(map(_is_negative, operands))
    return negative and (_reaches_quantize(node) or any(map(_with_scale, node.args[:2])))


def moves_scales_past(pool: fx.Node) -> bool:
    """Whether OpenVINO may fail to compile a pool, or a resize, over channels with a scale each.

    It moves the scales of a linear layer without a bias past it, where the channels are others.
    """
    name = operator_of(pool).name
    moves = "pool" in name or "upsample_nearest" in name
    return moves and is_operator(_with_scale(pool.args[0]), "linear", "matmul")


def gathers_and_crashes(node: fx.Node, args: Sequence[Any]) -> bool:
    """Whether OpenVINO may end the process in moving what it adds to channels past a Gather.

    It does so while compiling where each channel has a number of its own, a multiple was taken
    before, and a reshape joined the channels with another dimension.
    """
    if not is_operator(node, "select", "index_select", "index", "unbind"):
        return False
    passed = LAYOUTS | ELEMENTWISE - {*SHIFTS}
    return any(map(_shifts_channels, _ends(args[0], lambda end: end.get_type_name() in passed)))


def _shifts_channels(node: openvino.Node) -> bool:
    if node.get_type_name() not in SHIFTS:
        return False
    shapes = [[*v.get_partial_shape()] for v in node.input_values()]
    dims = max(map(len, shapes))
    whole = [[1] * (dims - len(shape)) + shape for shape in shapes]
    return dims > 1 and any(s[1] != 1 and all(n == 1 for n in (s[0], *s[2:])) for s in whole)


def loses_bound(low: Tensor, high: Tensor) -> bool:
    """Whether OpenVINO takes the lower bound of a range for 0, as it does below 1e-6.

    Not of a symmetric range, for which it needs no integer that stands for 0.
    """
    return bool(((low != 0) & (low.abs() < 1e-5) & (low != -high)).any())


def forgets_epsilon(x: Output) -> bool:
    """Whether OpenVINO may normalize a multiple of x with the epsilon that was meant for x.

    It moves scales past the normalization, which is right only where epsilon is nothing beside the
    variance: that of a quantized value, even if a float one is added, and constant factors of all
    that x is made of. It moves none past a shift.
    """
    ends = [n for n in _ends(x, _lets_scales_by) if n.get_type_name() != "Constant" and _is_real(n)]
    return any(n.get_type_name() == "FakeQuantize" for n in ends) or all(map(_has_factor, ends))


def _lets_scales_by(node: openvino.Node) -> bool:
    kind = node.get_type_name()
    shifts = kind in SHIFTS and any(map(np.any, _constants(node)))
    return _is_real(node) and kind not in PASSED_BY_NO_SCALE and not shifts


def _has_factor(node: openvino.Node) -> bool:
    return node.get_type_name() in ("Multiply", "Divide") and bool(_constants(node))


def _constants(node: openvino.Node) -> list[np.ndarray]:
    return [v.get_node().get_data() for v in node.input_values() if _is_constant(v)]


def _is_real(node: openvino.Node) -> bool:
    return bool(node.get_output_element_type(0).is_real())


def _is_constant(value: Output) -> bool:
    return bool(value.get_node().get_type_name() == "Constant")


def _is_negative(operand: Any) -> bool:
    """Whether it is a constant, some of whose numbers are below zero."""
    if isinstance(operand, Output):
        return _is_constant(operand) and bool((operand.get_node().get_data() < 0).any())
    return isinstance(operand, int | float) and operand < 0


def _sources(value: Output, kind: str) -> list[openvino.Node]:
    """The nodes of a kind from which elementwise operators alone make a value."""
    between = ELEMENTWISE - {kind}
    ends = _ends(value, lambda node: node.get_type_name() in between)
    return [node for node in ends if node.get_type_name() == kind]


def _ends(value: Output, passes: Callable[[openvino.Node], bool]) -> Iterator[openvino.Node]:
    """The nodes, once each, at which the ways back from a value end: that do not let it pass."""
    queue, known = [value.get_node()], set()
    while queue:
        node = queue.pop()
        if node.get_name() in known:
            continue
        known.add(node.get_name())
        if passes(node):
            queue += [v.get_node() for v in node.input_values()]
        else:
            yield node


def _reaches_quantize(node: fx.Node) -> bool:
    return any(
        u.target is ops.quantize or (_passes(u) and _reaches_quantize(u)) for u in _readers(node)
    )


def _with_scale(source: Any) -> fx.Node | None:
    """The product without a bias that it is, or that activations make it of; None for others."""
    while _passes(source):
        source = source.args[0]
    if not isinstance(source, fx.Node) or operator_of(source).macs is None:
        return None
    return source if source.args[2:3] in ((), (None,)) else None


def _passes(node: Any) -> bool:
    if not isinstance(node, fx.Node):
        return False
    kinds = (Kind.ACTIVATION, Kind.LAYOUT, Kind.REPEATING)
    return node.target is ops.requantize_hint or operator_of(node).kind in kinds


def _readers(node: fx.Node) -> list[fx.Node]:
    """What reads a node, also behind a hint for which there is no operator."""
    hint = ops.requantize_hint
    return [r for u in node.users for r in (_readers(u) if u.target is hint else [u])]


def _times_read(node: fx.Node) -> int:
    """How often operators read a node: twice by one that multiplies it with itself."""
    return sum(max(1, pytree.tree_leaves(u.args).count(node)) for u in _readers(node))


def _ends_scale(user: fx.Node) -> bool:
    return user.op == "output" or user.target is ops.quantize


def _is_quantized(user: fx.Node) -> bool:
    """Whether it is an activation whose output is only quantized, or returned."""
    row = operator_of(user)
    is_activation = row.kind is Kind.ACTIVATION and row.elementwise
    return is_activation and all(map(_ends_scale, _readers(user)))
