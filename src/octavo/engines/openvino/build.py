"""A quantized graph as an openvino.Model, one operator at a time."""

from collections.abc import Callable
from typing import Any

import numpy as np
import openvino
import openvino.opset15 as ov
import torch
from openvino import Output
from torch import Tensor, fx

from ...capture.signature import Signature
from ...graph import ops
from ...graph.names import describe, full_name
from ...graph.operators import operator_of
from ...graph.tensors import along, attribute, is_constant
from ..qdq import Dequantize, Quantize
from . import arithmetic, masks, shapes  # noqa: F401  (they enter operators in the table)
from .table import TABLE, Unsupported
from .values import each, rank

aten = torch.ops.aten


class Builder:
    """Walks the graph once; `values` holds the OpenVINO value of each node.

    OpenVINO fuses operators into a linear layer only if its input has three dimensions. So a
    linear layer with more of them reads its input as `rows`, (N, all sizes between, C). The
    elementwise operators and linear layers after it read its output as rows, too. `rows` also
    holds the sizes between, which restore the shape.
    """

    def __init__(self, module: fx.GraphModule, signature: Signature) -> None:
        self.module, self.signature = module, signature
        self.values: dict[fx.Node, Any] = {}
        self.rows: dict[fx.Node, tuple[Output, list[int]]] = {}

    def build(self) -> openvino.Model:
        """The whole model; Unsupported, naming the node, for an operator outside the table."""
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
        if not isinstance(value, Output):
            raise Unsupported("an output that is not a tensor")
        return ov.result(value)

    def load(self, node: Any) -> Any:
        """The value of a node; tensors of the model become constants on first use."""
        if isinstance(node, fx.Node) and node not in self.values:
            self.values[node] = self.constant(attribute(self.module, node.target))
        return self.values[node] if isinstance(node, fx.Node) else node

    def constant(self, tensor: Tensor) -> Output:
        """A tensor as a constant."""
        array = tensor.detach().cpu().contiguous().numpy()
        return ov.constant(array, shared_memory=False).output(0)

    def by_rows(self, node: fx.Node) -> Output | None:
        """Lower a linear layer, or an operator that reads rows, to rows; None for any other."""
        source: Any = node.args[0] if node.args else None
        if getattr(node.target, "overloadpacket", None) is aten.linear:
            known = self.rows.get(source) or _as_rows(self.load(source))
        else:
            known = self.rows.get(source) if _is_elementwise(node) else None
        if known is None:
            return None
        rows, between = known
        output = self.call(node, rows)
        self.rows[node] = output, between
        width = output.get_partial_shape()[2].get_length()
        return ov.reshape(output, [0, *between, width], True).output(0)

    def call(self, node: fx.Node, *given: Output) -> Any:
        """Lower one operator; `given`, if any, takes the place of its first argument."""
        target = getattr(node.target, "overloadpacket", node.target)
        if target not in KNOWN:
            raise Unsupported(f"no entry for {describe(node)}")
        d = Dequantize.of(self.module, node)
        if d is not None and d.is_weight:
            return weight(self, node)
        first = given or fx.map_arg(node.args[:1], self.load)
        if d is not None:
            return first[0]  # the value has stayed float
        if (q := Quantize.of(self.module, node)) is not None:
            return self.fake_quantize(q, *first)
        if target in WEIGHTED:
            lower = WEIGHTED[target]
            args, kwargs = (self, *first, *node.args[1:]), node.kwargs
        else:
            lower = TABLE[target]
            rest, kwargs = fx.map_arg((node.args[1:], node.kwargs), self.load)
            args = (*first, *rest)
        try:
            return self.named(lower(*args, **kwargs), node)
        except (RuntimeError, TypeError, OverflowError) as e:  # raised by openvino and numpy
            raise Unsupported(f"{describe(node)}: {e}") from e

    def fake_quantize(self, q: Quantize, x: Output) -> Output:
        """A FakeQuantize, which OpenVINO turns into integers; x itself where it is not needed."""
        if q.node.target is ops.requantize_hint or q.is_redundant_requantize:
            return x
        low, high = (self.constant(b.float()) for b in q.bounds)
        return self.named(ov.fake_quantize(x, low, high, low, high, q.levels), q.node)

    def named(self, value: Any, node: fx.Node) -> Any:
        """The output of a new OpenVINO node, named by module path; any other value as it is."""
        if isinstance(value, openvino.Node):
            value.friendly_name = full_name(node)
            return value.output(0)
        return value


def _is_elementwise(node: fx.Node) -> bool:
    return operator_of(node).elementwise or node.target in (ops.quantize, ops.dequantize)


def _as_rows(value: Output) -> tuple[Output, list[int]] | None:
    """A value of more than three dimensions, all known but the first, as rows."""
    shape = value.get_partial_shape()
    if shape.rank.is_dynamic or len(shape) < 4 or any(d.is_dynamic for d in list(shape)[1:]):
        return None
    *between, width = (d.get_length() for d in list(shape)[1:])
    return ov.reshape(value, [0, -1, width], True).output(0), between


# ---- operators with a weight, which they read from the graph


def weight(b: Builder, node: Any, groups: int = 1) -> Output:
    """A weight, int8 with its scales or float; groups, if several, get a dimension of their own."""
    d = Dequantize.of(b.module, node)
    source = node if d is None else d.q
    if not is_constant(source):
        raise Unsupported("a weight that the model computes")
    value = attribute(b.module, source.target)
    scale = None if d is None else along(d.scale, d.axis, value.dim())
    if groups > 1:
        value = value.unflatten(0, (groups, -1))
        if scale is not None:
            scale = scale.unflatten(0, (groups, -1)) if d.axis == 0 else scale.unsqueeze(0)
    if scale is None:
        return b.constant(value)
    return ov.multiply(ov.convert(b.constant(value), "f32"), b.constant(scale)).output(0)


def _convolve(
    b: Builder, forms: tuple[Any, Any], x: Output, w: Any, bias: Any, groups: int, **settings: Any
) -> Any:
    """forms: OpenVINO's operator without and with groups. settings: one number, or one an axis."""
    kernel = weight(b, w, groups)
    spatial = rank(kernel) - (2 if groups == 1 else 3)
    settings = {
        name: value if isinstance(value, str) else each(value, spatial)
        for name, value in settings.items()
    }
    y = forms[groups > 1](x, kernel, **settings)
    if bias is None:
        return y
    if not is_constant(bias):
        raise Unsupported("a bias that the model computes")
    return ov.add(y, b.constant(attribute(b.module, bias.target).view([1, -1] + [1] * spatial)))


def _conv(b: Builder, x: Output, w: Any, bias: Any, *options: Any) -> Any:
    stride, padding, dilation, groups = options
    auto = {"same": "SAME_UPPER", "valid": "VALID"}.get(str(padding), "EXPLICIT")
    pads = 0 if isinstance(padding, str) else padding
    settings = {"strides": stride, "pads_begin": pads, "pads_end": pads, "dilations": dilation}
    forms = ov.convolution, ov.group_convolution
    return _convolve(b, forms, x, w, bias, groups, auto_pad=auto, **settings)


def _conv_transpose(b: Builder, x: Output, w: Any, bias: Any, *options: Any) -> Any:
    stride, pads, output_padding, groups, dilation = options
    settings = {"strides": stride, "pads_begin": pads, "pads_end": pads, "dilations": dilation}
    forms = ov.convolution_backprop_data, ov.group_convolution_backprop_data
    return _convolve(b, forms, x, w, bias, groups, output_padding=output_padding, **settings)


def _linear(b: Builder, x: Output, w: Any, bias: Any) -> Any:
    y = ov.matmul(x, b.load(w), False, True)
    return y if bias is None else ov.add(y, b.load(bias))


WEIGHTED: dict[Any, Callable[..., Any]] = {
    **dict.fromkeys((aten.conv1d, aten.conv2d, aten.conv3d), _conv),
    **dict.fromkeys(
        (aten.conv_transpose1d, aten.conv_transpose2d, aten.conv_transpose3d), _conv_transpose
    ),
    aten.linear: _linear,
}
KNOWN = {*TABLE, *WEIGHTED, *(op.overloadpacket for op in ops.ALL)}  # all that Builder can lower
