"""A quantized graph as an openvino.Model, one operator at a time."""

import functools
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import openvino
import openvino.opset15 as ov
import torch
import torch.utils._pytree as pytree
from openvino import Output
from torch import Tensor, fx
from torch._ops import OpOverloadPacket

from ...capture.signature import Signature
from ...graph import ops
from ...graph.names import describe, full_name
from ...graph.operators import operator_of
from ...graph.qdq_checks import dynamic_input
from ...graph.recurrent import rounded_lstm as rounded_lstm_op
from ...graph.tensors import along, attribute, is_constant
from ..qdq import Dequantize, Quantize
from . import (  # noqa: F401  (they fill the table)
    arithmetic,
    masks,
    pieces,
    recurrent,
    resize,
    shapes,
)
from .dynamic import PROPERTY, computes_in_float, fake_quantize_groups, group_size_of, is_rows
from .faults import (
    doubles_scale,
    forgets_sign,
    gathers_and_crashes,
    joins_attention,
    joins_sequence,
    leaves_gaps,
    loses_bound,
    moves_scales_past,
    pads_and_crashes,
    saturates,
)
from .frontend import OperatorConverter, splice
from .guards import all_guards, inside
from .rounded_lstm import rounded_lstm
from .shapes import size_of
from .sizes import Real
from .table import TABLE, Unsupported
from .values import each, ints, rank, scalar

aten = torch.ops.aten
Rows = tuple[Output, list[int] | None]


class Builder:
    """Walks the graph once; `values` holds the OpenVINO value of each node.

    OpenVINO fuses operators into a linear layer only if its input has three dimensions. So a
    linear layer (or product with a matrix) with more of them reads its input as `rows`, (N, all
    sizes between, C). The elementwise operators and linear layers after it read its output as rows,
    too. `rows` also holds the sizes between, which restore the shape.

    A linear layer of two dimensions reads rows, (1, N, C), unless it `joins_sequence`: see there.

    converter: for operators outside the table; `originals` are its nodes, for those of the graph
        where that is part of another.
    """

    def __init__(
        self,
        module: fx.GraphModule,
        signature: Signature,
        converter: OperatorConverter | None = None,
        originals: Mapping[fx.Node, fx.Node] | None = None,
    ) -> None:
        self.module, self.signature = module, signature
        self.converter, self.originals = converter, originals or {}
        self.values: dict[fx.Node, Any] = {}
        self.rows: dict[fx.Node, Rows] = {}
        self.guards: list[tuple[str, Output]] = []  # operator that reads by index, if it is right
        self.layers: set[tuple[int, int]] = set()  # shapes of recurrent layers in integers
        self.group_size = group_size_of(module)  # of dynamic inputs

    @property
    def guarded(self) -> tuple[str, ...]:
        """The operators that the last output of a guarded model tells about."""
        return tuple(name for name, _ in self.guards)

    @property
    def settings(self) -> dict[str, Any]:
        """Properties with which the model must be compiled."""
        return {PROPERTY: str(self.group_size)}

    def build(self, guarded: bool = False) -> openvino.Model:
        """The whole model; Unsupported, naming the node, for an operator outside the table.

        guarded: one more output for the `guards`, if there are any.
        """
        inputs = iter(self.signature.inputs)
        parameters = []
        for node in self.module.graph.nodes:
            if node.op == "placeholder":
                parameters.append(self.parameter(*next(inputs), node.name))
                self.values[node] = parameters[-1].output(0)
            elif node.op == "call_function":
                self.values[node] = self.lower(node)
            elif node.op == "output":
                results = [self.result(v) for v in node.args[0]]
        if guarded and self.guards:
            results.append(ov.result(all_guards([g for _, g in self.guards])))
        return openvino.Model(results, parameters, "octavo")

    def lower(self, node: fx.Node) -> Any:
        """The value of a node: from the table, or else as the frontend converts it alone."""
        if (dynamic := dynamic_input(node)) is not None:
            return self.rounded(node, *dynamic)
        try:
            return self.by_rows(node) or self.call(node)
        except Unsupported as e:
            converted = self.converted(node)
            if converted is None:
                raise Unsupported(str(e), node) from e
            return converted

    def converted(self, node: fx.Node) -> Any:
        """The output, or list of outputs, of a node that the table lacks; None if it stays so."""
        original = self.originals.get(node, node)
        model = self.converter.convert(original) if self.converter else None
        if self.converter is None or model is None:
            return None
        known = {self.originals.get(n, n): n for n in self.module.graph.nodes}
        # apart: OpenVINO may end the process in moving scales through what the frontend makes
        values = [_apart(self.load(known[n])) for n in self.converter.inputs(original)]
        outputs = splice(model, values)
        return outputs if self.converter.is_list(original) else outputs[0]

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
        """Lower a product with a matrix, or an operator that reads rows, to rows; else None."""
        source: Any = node.args[0] if node.args else None
        target = getattr(node.target, "overloadpacket", None)
        if target is aten.linear or (target is aten.matmul and self.is_matrix(node.args[1])):
            known = self.rows.get(source) or _as_rows(self.load(source), joins_sequence(node))
        else:
            known = self.rows.get(source) if _is_elementwise(node) else None
        if known is None:
            return None
        rows, between = known
        output = self.call(node, rows)
        self.rows[node] = output, between
        if between is None:  # not a Reshape, with which OpenVINO takes all of it back
            return ov.squeeze(output, np.array([0], np.int64)).output(0)
        width = output.get_partial_shape()[2].get_length()
        return ov.reshape(output, [0, *between, width], True).output(0)

    def rounded(self, node: fx.Node, x: fx.Node, group_size: int) -> Output:
        """A dynamic input: x itself where OpenVINO rounds it."""
        if group_size != self.group_size:
            return fake_quantize_groups(self.load(x), group_size)
        if x in self.rows:
            self.rows[node] = self.rows[x]
        found: Output = self.load(x)
        return found

    def rows_of(self, node: fx.Node) -> Any:
        """Rows of an int8 table, with a scale each."""
        q, scale = (self.load(n) for n in node.args[:2])
        return self.named(ov.multiply(ov.convert(q, "f32"), scale), node)

    def is_matrix(self, node: Any) -> bool:
        """Whether a value has two dimensions."""
        value = self.load(node)
        return isinstance(value, Output) and rank(value) == 2

    def call(self, node: fx.Node, *given: Output) -> Any:
        """Lower one operator; `given`, if any, takes the place of its first argument."""
        target = getattr(node.target, "overloadpacket", node.target)
        if target not in KNOWN:
            raise Unsupported(f"no entry for {describe(node)}")
        if node.target in ops.DYNAMIC:
            return self.rows_of(node) if is_rows(self.module, node) else _part_of_rounding(node)
        d = Dequantize.of(self.module, node)
        if d is not None and d.is_weight:
            return weight(self, node)
        first = given or fx.map_arg(node.args[:1], self.load)
        if d is not None:
            return first[0]  # the value has stayed float
        if (q := Quantize.of(self.module, node)) is not None:
            return self.fake_quantize(q, *first)
        own = 3 if target in WEIGHTED else 1  # weight and bias are read from the graph
        rest, kwargs = fx.map_arg((node.args[own:], node.kwargs), self.load)
        args = (*first, *node.args[1:own], *rest)
        if isinstance(target, OpOverloadPacket):
            args, kwargs = pytree.tree_map_only(Real, Real.as_float, (args, kwargs))
        alone = doubles_scale(node)
        if target in (aten.mul, aten.div, aten.neg) and forgets_sign(node, args):
            alone, args = True, tuple(map(_apart, args))
        if moves_scales_past(node) or gathers_and_crashes(node, args):
            args = (_apart(args[0]), *args[1:])
        lower: Callable[..., Any] = functools.partial(rounded_lstm, self, node)
        if node.target is rounded_lstm_op:  # it reads its weights and scales from the graph
            args, kwargs = (), {}
        else:
            lower = TABLE.get(target) or functools.partial(WEIGHTED[target], self)
        try:
            value = self.named(lower(*args, **kwargs), node)
            if not _is_scale_of_rows(node):  # whose ids are those of the rows
                self.guards += [(full_name(node), g) for g in inside(target, args)]
        # raised by openvino, by numpy, and by entries for arguments that they do not take
        except (RuntimeError, TypeError, ValueError, ArithmeticError, LookupError) as e:
            raise Unsupported(f"{describe(node)}: {e}") from e
        alone = alone or (isinstance(value, Output) and joins_attention(value))
        return _apart(value) if alone else value

    def fake_quantize(self, q: Quantize, x: Output) -> Output:
        """A FakeQuantize, which OpenVINO turns into integers; x itself where it is not needed."""
        if q.node.target is ops.requantize_hint or q.is_redundant_requantize:
            return x
        bounds = [b.float() for b in q.bounds]
        low, high = (self.constant(b) for b in bounds)
        if not loses_bound(*bounds):
            return self.named(ov.fake_quantize(x, low, high, low, high, q.levels), q.node)
        shifted = (self.constant(b - bounds[0]) for b in bounds)
        y = self.named(ov.fake_quantize(x, low, high, *shifted, q.levels), q.node)
        return ov.add(y, low).output(0)

    def named(self, value: Any, node: fx.Node) -> Any:
        """The output of a new OpenVINO node, named by module path; any other value as it is."""
        if isinstance(value, openvino.Node):
            value.friendly_name = full_name(node)
            return value.output(0)
        return value


def _is_scale_of_rows(node: fx.Node) -> bool:
    return any(u.target is ops.dequantize_groups and u.args[1] is node for u in node.users)


def _part_of_rounding(node: fx.Node) -> None:
    """A scale or integers that `rounded` does not need; Unsupported if anything else reads them."""
    readers = [r for u in node.users for r in (u, *u.users) if r.target in ops.DYNAMIC]
    if node.target is ops.dequantize_groups or not any(map(dynamic_input, readers)):
        raise Unsupported("integers without their dynamic scale")


def _apart(value: Any) -> Any:
    """The value itself, but nothing that OpenVINO joins scales with."""
    is_real = isinstance(value, Output) and value.get_element_type().is_real()
    if not is_real or value.get_node().get_type_name() == "Constant":
        return value
    return ov.maximum(value, np.float32(-np.inf)).output(0)


def _is_elementwise(node: fx.Node) -> bool:
    return operator_of(node).elementwise or node.target in (ops.quantize, ops.dequantize)


def _as_rows(value: Output, in_sequence: bool) -> Rows | None:
    """A value of more than three dimensions, all known but the first, or of two, as rows."""
    shape = value.get_partial_shape()
    if shape.rank.is_dynamic or any(d.is_dynamic for d in list(shape)[1:]):
        return None
    if len(shape) == 2 and not in_sequence:
        return ov.unsqueeze(value, np.array([0], np.int64)).output(0), None
    if len(shape) < 4:
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
    if computes_in_float(b.module, node, b.group_size):
        return b.constant(value.float() * scale)
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
    size = [kernel.get_partial_shape()[-d].get_length() for d in range(spatial, 0, -1)]
    if "output_padding" in settings and (saturates(size, settings) or leaves_gaps(size, settings)):
        x = _apart(x)  # then it is computed in float
    elif pads_and_crashes(x, size):
        padded, begin, end, value = x.get_node().input_values()
        x = _apart(ov.pad(_apart(padded), begin, end, "constant", value).output(0))
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
    if any(isinstance(p, Output) for p in output_padding):
        return _conv_transpose_to(b, x, w, bias, *options)
    settings = {"strides": stride, "pads_begin": pads, "pads_end": pads, "dilations": dilation}
    forms = ov.convolution_backprop_data, ov.group_convolution_backprop_data
    return _convolve(b, forms, x, w, bias, groups, output_padding=output_padding, **settings)


def _conv_transpose_to(b: Builder, x: Output, w: Any, bias: Any, *options: Any) -> Any:
    """With computed output padding: with the most that there may be, of which it keeps a part."""
    stride, pads, output_padding, groups, dilation = options
    spatial = len(output_padding)
    most = [
        max(s, d) - 1 for s, d in zip(each(stride, spatial), each(dilation, spatial), strict=True)
    ]
    y = _conv_transpose(b, x, w, bias, stride, pads, most, groups, dilation).output(0)
    ends = [
        ov.subtract(scalar(size_of(y, 2 + d)), ov.subtract(scalar(m), scalar(p))).output(0)
        for d, (m, p) in enumerate(zip(most, output_padding, strict=True))
    ]
    zeros, ones = [0] * spatial, [1] * spatial
    return ov.slice(y, ints(zeros), ints(ends), ints(ones), ints(list(range(2, 2 + spatial))))


def _linear(b: Builder, x: Output, w: Any, bias: Any) -> Any:
    y = ov.matmul(x, b.load(w), False, True)
    return y if bias is None else ov.add(y, b.load(bias))


CONVOLUTIONS: dict[Any, Callable[..., Any]] = {
    **dict.fromkeys((aten.conv1d, aten.conv2d, aten.conv3d), _conv),
    **dict.fromkeys(
        (aten.conv_transpose1d, aten.conv_transpose2d, aten.conv_transpose3d), _conv_transpose
    ),
}
WEIGHTED = CONVOLUTIONS | {aten.linear: _linear}
OWN = (*ops.ALL, rounded_lstm_op)
KNOWN = {*TABLE, *WEIGHTED, *(op.overloadpacket for op in OWN)}  # all that Builder can lower
