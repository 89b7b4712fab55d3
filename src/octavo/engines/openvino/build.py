"""A quantized graph as an openvino.Model, one operator at a time."""

from collections.abc import Callable
from typing import Any

import numpy as np
import openvino
import openvino.opset15 as ov
import torch
from torch import Tensor, fx

from ...capture.signature import Signature
from ...graph import ops
from ...graph.names import describe, full_name
from ...graph.tensors import along, attribute
from . import masks as openvino_masks  # noqa: F401  (they enter operators in the table)
from .ops import TABLE, Unsupported, each

aten = torch.ops.aten


class Builder:
    """Walks the graph once; `values` holds what each node has become.

    OpenVINO fuses what follows a linear layer with it only if that has three dimensions. So one
    of more is given its input as `rows`, (N, all between, C), and rows are what elementwise
    operators and the next linear layer then read; with each go the sizes between.
    """

    def __init__(self, module: fx.GraphModule, signature: Signature) -> None:
        self.module, self.signature = module, signature
        self.values: dict[fx.Node, Any] = {}
        self.rows: dict[fx.Node, tuple[Any, list[int]]] = {}

    def build(self) -> openvino.Model:
        """The whole model; raises Unsupported, naming the node, if the table does not do."""
        inputs = iter(self.signature.inputs)
        parameters = []
        for node in self.module.graph.nodes:
            if node.op == "placeholder":
                parameters.append(self.parameter(*next(inputs), node.name))
                self.values[node] = parameters[-1].output(0)
            elif node.op == "call_function":
                self.values[node] = self.by_rows(node) or self.call(node)
            elif node.op == "output":
                results = [self.result(v) for v in node.args[0]]
        return openvino.Model(results, parameters, "octavo")

    def parameter(self, dtype: str, shape: tuple[int | None, ...], name: str) -> Any:
        """A model input."""
        free = openvino.PartialShape([-1 if d is None else d for d in shape])
        kind = np.dtype(np.float32 if dtype in ("float16", "bfloat16", "float64") else dtype)
        parameter = ov.parameter(free, openvino.Type(kind), name)
        parameter.output(0).set_names({name})
        return parameter

    def result(self, node: Any) -> Any:
        """A model output."""
        value = self.load(node)
        if not isinstance(value, openvino.Output):
            raise Unsupported("an output that is not a tensor")
        return ov.result(value)

    def load(self, node: Any) -> Any:
        """What a node has become; tensors become constants when first read."""
        if isinstance(node, fx.Node) and node not in self.values:
            self.values[node] = self.constant(attribute(self.module, node.target))
        return self.values[node] if isinstance(node, fx.Node) else node

    def constant(self, tensor: Tensor) -> Any:
        """A tensor as a constant."""
        array = tensor.detach().cpu().contiguous().numpy()
        return ov.constant(array, shared_memory=False).output(0)

    def by_rows(self, node: fx.Node) -> Any:
        """Lower a linear layer, or what reads its rows, to rows; None for any other operator."""
        source: Any = node.args[0] if node.args else None
        target = getattr(node.target, "overloadpacket", node.target)
        if target is aten.linear:
            known = self.rows.get(source) or _as_rows(self.load(source))
        else:
            known = self.rows.get(source) if target in ELEMENTWISE else None
        if known is None:
            return None
        rows, between = known
        whole, self.values[source] = self.values[source], rows
        given = self.call(node)
        self.values[source] = whole
        self.rows[node] = given, between
        width = given.get_partial_shape()[2].get_length()
        return ov.reshape(given, [0, *between, width], True).output(0)

    def call(self, node: fx.Node) -> Any:
        """Lower one operator."""
        target = getattr(node.target, "overloadpacket", node.target)
        if node.target in (ops.quantize, ops.fuse_in_accumulator):
            return self.named(self.quantize(node), node)
        if node.target is ops.dequantize:
            return self.dequantize(node)
        if node.target is ops.requantize_hint:
            return self.load(node.args[0])
        if target in WEIGHTED:
            lower = WEIGHTED[target]
            args, kwargs = (self, *node.args), node.kwargs
        elif target in TABLE:
            lower = TABLE[target]
            args, kwargs = fx.map_arg((node.args, node.kwargs), self.load)
        else:
            raise Unsupported(f"no entry for {describe(node)}")
        try:
            return self.named(lower(*_plain(args), **_plain(kwargs)), node)
        except (RuntimeError, TypeError, OverflowError) as e:  # how openvino and numpy refuse
            raise Unsupported(f"{describe(node)}: {e}") from e

    def quantize(self, node: fx.Node) -> Any:
        """A FakeQuantize; OpenVINO makes the integers of it."""
        x, _, _, qmin, qmax = node.args[:5]
        if passes_grid(node):
            return self.load(x)
        low, high = map(self.constant, grid_bounds(self.module, node))
        return ov.fake_quantize(self.load(x), low, high, low, high, qmax - qmin + 1)

    def dequantize(self, node: fx.Node) -> Any:
        """An int8 weight with its scales; any other value has stayed float."""
        q = node.args[0]
        return weight(self, node) if q.op == "get_attr" else self.load(q)

    def named(self, value: Any, node: fx.Node) -> Any:
        """A new openvino node as its output, named by module path; anything else as it is."""
        if isinstance(value, openvino.Node):
            value.friendly_name = full_name(node)
            return value.output(0)
        return value


def _plain(value: Any) -> Any:
    """torch.fx's immutable lists as lists."""
    if isinstance(value, dict):
        return {k: _plain(v) for k, v in value.items()}
    if isinstance(value, list):
        return [_plain(v) for v in value]
    return tuple(_plain(v) for v in value) if isinstance(value, tuple) else value


ELEMENTWISE = {
    *(ops.quantize.overloadpacket, ops.dequantize.overloadpacket),
    *(aten.relu, aten.gelu, aten.silu, aten.hardswish, aten.hardtanh, aten.leaky_relu),
}


def _as_rows(value: Any) -> tuple[Any, list[int]] | None:
    """A value of more than three dimensions, all known but the first, as rows."""
    shape = value.get_partial_shape()
    if shape.rank.is_dynamic or len(shape) < 4 or any(d.is_dynamic for d in list(shape)[1:]):
        return None
    *between, width = (d.get_length() for d in list(shape)[1:])
    return ov.reshape(value, [0, -1, width], True).output(0), between


# ---- operators that look at the graph around them


def passes_grid(node: fx.Node) -> bool:
    """Whether a quantize only restores the grid its input came from, as around a max pool."""
    inner = node.args[0]
    source = inner.args[0] if isinstance(inner, fx.Node) and inner.args else None
    if not isinstance(source, fx.Node) or source.target is not ops.dequantize:
        return False
    packet = getattr(inner.target, "overloadpacket", None)
    return packet in GRID_KEEPING and source.args[1:3] == node.args[1:3]


GRID_KEEPING = {
    *(aten.max_pool1d, aten.max_pool2d, aten.max_pool3d),
    *(aten.upsample_nearest1d, aten.upsample_nearest2d, aten.upsample_nearest3d),
    *(aten.reflection_pad1d, aten.reflection_pad2d, aten.replication_pad2d),
    *(aten.pad, aten.constant_pad_nd),
}


def grid_bounds(module: fx.GraphModule, node: fx.Node) -> tuple[Tensor, Tensor]:
    """The reals that the smallest and largest integer of a quantize stand for."""
    scale, zero_point = (attribute(module, n.target).cpu().double() for n in node.args[1:3])
    low, high = (((q - zero_point) * scale).float() for q in node.args[3:5])
    return low, high


def weight(b: Builder, node: Any, shape: list[int] | None = None) -> Any:
    """A weight, int8 with its scales or float, in another shape if need be."""
    if node.target is not ops.dequantize:
        if node.op != "get_attr":
            raise Unsupported("a weight that the model computes")
        value = attribute(b.module, node.target)
        return b.constant(value if shape is None else value.reshape(shape))
    q, scale = (attribute(b.module, n.target) for n in node.args[:2])
    axis = node.args[3]
    scale = along(scale, axis, q.dim())
    if shape is not None:
        scale = scale.expand([s if d == axis else 1 for d, s in enumerate(q.shape)])
        scale = _grouped(scale, shape, axis)
        q = q.reshape(shape)
    f32 = ov.convert(b.constant(q), "f32")
    return ov.multiply(f32, b.constant(scale)).output(0)


def _grouped(scale: Tensor, shape: list[int], axis: int) -> Tensor:
    """Scales of a weight that was split into groups along axis 0."""
    if axis == 0:
        return scale.reshape([shape[0], shape[1], *[1] * (len(shape) - 2)])
    return scale.reshape([1, 1, shape[2], *[1] * (len(shape) - 3)])


def _padding(padding: Any, spatial: int) -> tuple[list[int], list[int], str]:
    if isinstance(padding, str):
        same = padding == "same"
        return [0] * spatial, [0] * spatial, "SAME_UPPER" if same else "VALID"
    return each(padding, spatial), each(padding, spatial), "EXPLICIT"


def _with_bias(b: Builder, y: Any, bias: Any, spatial: int) -> Any:
    if bias is None:
        return y
    if bias.op != "get_attr":
        raise Unsupported("a bias that the model computes")
    value = attribute(b.module, bias.target).detach()
    return ov.add(y, b.constant(value.view([1, -1] + [1] * spatial)))


def _conv(b: Builder, x: Any, w: Any, bias: Any, *options: Any) -> Any:
    stride, padding, dilation, groups = options
    shape = _weight_shape(b, w)
    spatial = len(shape) - 2
    begin, end, auto = _padding(padding, spatial)
    stride, dilation = each(stride, spatial), each(dilation, spatial)
    if groups == 1:
        y = ov.convolution(b.load(x), weight(b, w), stride, begin, end, dilation, auto)
    else:
        kernel = weight(b, w, [groups, shape[0] // groups, *shape[1:]])
        y = ov.group_convolution(b.load(x), kernel, stride, begin, end, dilation, auto)
    return _with_bias(b, y, bias, spatial)


def _conv_transpose(b: Builder, x: Any, w: Any, bias: Any, *options: Any) -> Any:
    stride, padding, output_padding, groups, dilation = options
    shape = _weight_shape(b, w)
    spatial = len(shape) - 2
    settings = {
        "strides": each(stride, spatial),
        "pads_begin": each(padding, spatial),
        "pads_end": each(padding, spatial),
        "dilations": each(dilation, spatial),
        "output_padding": each(output_padding, spatial),
    }
    if groups == 1:
        y = ov.convolution_backprop_data(b.load(x), weight(b, w), **settings)
    else:
        kernel = weight(b, w, [groups, shape[0] // groups, *shape[1:]])
        y = ov.group_convolution_backprop_data(b.load(x), kernel, **settings)
    return _with_bias(b, y, bias, spatial)


def _linear(b: Builder, x: Any, w: Any, bias: Any) -> Any:
    y = ov.matmul(b.load(x), b.load(w), False, True)
    return y if bias is None else ov.add(y, b.load(bias))


def _weight_shape(b: Builder, node: Any) -> list[int]:
    if node.target is ops.dequantize:
        node = node.args[0]
    if node.op != "get_attr":
        raise Unsupported("a weight that the model computes")
    return list(attribute(b.module, node.target).shape)


# These read their weights from the graph: grouped ones in another shape, their bias in 4-D.
WEIGHTED: dict[Any, Callable[..., Any]] = {
    aten.conv1d: _conv,
    aten.conv2d: _conv,
    aten.conv3d: _conv,
    aten.conv_transpose1d: _conv_transpose,
    aten.conv_transpose2d: _conv_transpose,
    aten.conv_transpose3d: _conv_transpose,
    aten.linear: _linear,
}
