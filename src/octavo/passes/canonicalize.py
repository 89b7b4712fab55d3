"""Different ways to write one operator become one, so that one rule is enough."""

import operator
from typing import Any

import torch
from torch import fx

from ..graph.builder import NodeBuilder
from .aliases import rename_aliases

aten = torch.ops.aten


def canonicalize(module: fx.GraphModule) -> None:
    """concat -> cat; x * sigmoid(x) -> silu(x); relu6(x) -> hardtanh(x, 0, 6); addmm -> linear.

    The zeros that an average pool pads with and counts are padded before it: engines that pool
    integers would pad with the integer 0, which is not the number 0.
    """
    rename_aliases(module)
    for node in module.graph.nodes:
        if node.target is aten.mul.Tensor and (x := _gated_by_itself(node)) is not None:
            node.target, node.args = aten.silu.default, (x,)
        elif node.target is aten.addmm.default and _is_linear(node):
            bias, x, weight = node.args[:3]
            with module.graph.inserting_before(node):
                transposed = NodeBuilder(module.graph, node)(aten.t.default, weight)
            node.target, node.args, node.kwargs = aten.linear.default, (x, transposed, bias), {}
        elif node.target is aten.relu6.default:
            node.target, node.args = aten.hardtanh.default, (node.args[0], 0.0, 6.0)
        elif node.target in AVERAGES and node.args[5] and (any(node.args[3]) or node.args[4]):
            _pad_average(module.graph, node)
        elif node.target in EMPTY:
            _fill(node)
        elif node.target in RANDOM:
            # like `remove_in_place`, for operators whose out-of-place form has another name
            node.target = RANDOM[node.target]
            node.args[0].replace_all_uses_with(node, lambda user, node=node: user > node)


def _pad_average(graph: fx.Graph, pool: fx.Node) -> None:
    """Pad with zeros before an average pool that counts them.

    With `ceil_mode`, the padded one may have a window more, which begins in the padding: it is cut
    off.
    """
    target: Any = pool.target
    args: Any = pool.args
    x, *sizes, ceil_mode, _ = args[:6]
    spatial = AVERAGES[target]
    given = ([*(s or sizes[0])] for s in sizes)
    kernel, stride, padding = (s * spatial if len(s) == 1 else s for s in given)
    with graph.inserting_before(pool):
        emit = NodeBuilder(graph, pool)
        pads = [p for p in padding[::-1] for _ in range(2)]
        x = emit(aten.constant_pad_nd.default, x, pads, 0.0) if any(pads) else x
        counts = not ceil_mode  # what lies beyond the padding does not count, but to ONNX Runtime
        y = emit(target, x, kernel, stride, [0] * spatial, ceil_mode, counts, *args[6:])
        for d, k, s, p in zip(range(-spatial, 0), kernel, stride, padding, strict=True):
            if ceil_mode and k < s + p:
                begin, size = p + s - 1, emit.size(args[0], d)
                if isinstance(size, int):
                    windows = (size + begin) // s
                else:
                    windows = emit(operator.floordiv, emit(operator.add, size, begin), s)
                y = emit(aten.slice.Tensor, y, d, 0, windows)
    pool.replace_all_uses_with(y)
    graph.erase_node(pool)


def _fill(node: fx.Node) -> None:
    """Zeros for memory that is returned as it was found: what the model computes is the same."""
    zeros = node.target = EMPTY[node.target]
    taken = [a for a in zeros._schema.arguments if not a.kwarg_only]
    node.args = node.args[: len(taken)]  # sizes, without strides
    node.kwargs = {k: v for k, v in node.kwargs.items() if k not in ("memory_format", "pin_memory")}


def _is_linear(addmm: fx.Node) -> bool:
    """Whether it is bias + x @ weight, with constants for both."""
    constants = all(addmm.args[i].op == "get_attr" for i in (0, 2))
    scales = (addmm.kwargs.get("beta", 1), addmm.kwargs.get("alpha", 1))
    return constants and scales == (1, 1) and addmm.args[0].meta["val"].dim() == 1


EMPTY: dict[Any, Any] = {
    aten.empty.memory_format: aten.zeros.default,
    aten.empty_permuted.default: aten.zeros.default,
    aten.empty_strided.default: aten.zeros.default,
    aten.empty_like.default: aten.zeros_like.default,
    aten.new_empty.default: aten.new_zeros.default,
}
RANDOM: dict[Any, Any] = {
    aten.bernoulli_.float: aten.bernoulli.p,
    aten.normal_.default: aten.normal_functional.default,
}
# operator -> spatial dimensions
AVERAGES = {aten.avg_pool1d.default: 1, aten.avg_pool2d.default: 2, aten.avg_pool3d.default: 3}


def _gated_by_itself(node: fx.Node) -> Any:
    """x, where the node is x * sigmoid(x) and nothing else reads the sigmoid."""
    for x, gate in (node.args, node.args[::-1]):
        gated = isinstance(gate, fx.Node) and gate.target is aten.sigmoid.default
        if gated and gate.args[0] is x and len(gate.users) == 1:
            return x
    return None
