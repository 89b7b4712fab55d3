"""The OpenVINO engine: Intel's and ARM's CPU kernels, int8 end to end.

The openvino.Model is built straight from the graph, operator by operator, which takes
milliseconds. A quantize -> dequantize pair becomes one FakeQuantize, an int8 weight a constant
with its scale; OpenVINO fuses these into integer kernels. A graph with an operator outside the
table goes as a whole through OpenVINO's PyTorch frontend.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.utils._pytree as pytree
from torch import Tensor, fx

from .. import ops
from ..calibrate import describe
from ..capture import Signature, module_path
from ..errors import EngineError
from ..tensors import attribute
from . import register_engine

if TYPE_CHECKING:
    import openvino

    from ..model import QuantizedModel

aten = torch.ops.aten


def import_openvino() -> Any:
    """The openvino package; EngineError, saying how to get it, where there is none."""
    try:
        import openvino
    except ImportError as e:
        raise EngineError(
            "the engine 'openvino' needs the package openvino: pip install openvino "
            f"(or use compile('reference')). Importing it failed: {e}"
        ) from e
    return openvino


@register_engine("openvino")
def openvino_engine(
    model: QuantizedModel, threads: int | None = None, hint: str = "latency"
) -> CompiledModel:
    """Compile for OpenVINO's CPU plugin.

    threads: at most so many; default as OpenVINO decides, all physical cores.
    hint: "latency" (one call at a time is fastest) or "throughput" (many at once).
    """
    openvino = import_openvino()
    if hint not in ("latency", "throughput"):
        raise EngineError(f"hint={hint!r}: choose 'latency' or 'throughput'")
    settings: dict[str, Any] = {"PERFORMANCE_HINT": hint.upper()}
    if threads is not None:
        settings["INFERENCE_NUM_THREADS"] = threads
    built = build(model.graph_module, model.signature)
    return CompiledModel(openvino.Core(), built, model.signature, settings)


class CompiledModel:
    """A model compiled for OpenVINO: torch tensors or numpy arrays in, torch tensors out.

    Each shape of inputs is compiled when first seen (static shapes are faster); after `shapes`
    of them a model for any shape is used. May be called from several threads at once.
    """

    shapes = 8

    def __init__(
        self, core: Any, built: openvino.Model, signature: Signature, settings: dict[str, Any]
    ) -> None:
        self.core, self.model, self.signature, self.settings = core, built, signature, settings
        self.by_shape: OrderedDict[tuple, Any] = OrderedDict()
        self.lock = threading.Lock()
        self.local = threading.local()

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        args, kwargs = pytree.tree_map_only(np.ndarray, torch.from_numpy, (args, kwargs))
        inputs = self.signature.flatten(args, kwargs)
        outputs = self.run([t.detach().cpu().contiguous().numpy() for t in inputs])
        return self.signature.unflatten(outputs)

    def run(self, inputs: list[np.ndarray]) -> list[Any]:
        """One inference on flat arrays; the results are the caller's own."""
        request, bound = self._request(tuple(a.shape for a in inputs))
        for mine, a in zip(bound, inputs, strict=True):
            np.copyto(mine, a, casting="same_kind")
        results = request.infer(share_outputs=True)
        return [torch.from_numpy(np.array(results[o])) for o in request.model_outputs]

    def _request(self, shapes: tuple) -> tuple[Any, list[np.ndarray]]:
        """This thread's request for these shapes, its inputs bound to memory of our own."""
        cache = self.local.__dict__.setdefault("requests", OrderedDict())
        if shapes not in cache:
            request = self.compiled(shapes).create_infer_request()
            bound = [
                np.zeros(s, p.get_element_type().to_dtype())
                for s, p in zip(shapes, self.model.get_parameters(), strict=True)
            ]
            for i, array in enumerate(bound):
                request.set_input_tensor(i, import_openvino().Tensor(array, shared_memory=True))
            cache[shapes] = _Request(request, bound)
            if len(cache) > self.shapes:
                cache.popitem(last=False)
        cache.move_to_end(shapes)
        return cache[shapes], cache[shapes].bound

    def compiled(self, shapes: tuple) -> Any:
        """The openvino.CompiledModel for input shapes; one for any shape beyond `shapes` many."""
        with self.lock:
            if shapes in self.by_shape:
                return self.by_shape[shapes]
            fixed = len(self.by_shape) < self.shapes
            key = shapes if fixed else None
            if key not in self.by_shape:
                model = self.model.clone()
                if fixed:
                    model.reshape({p.output(0): s for p, s in zip(model.get_parameters(), shapes, strict=True)})
                self.by_shape[key] = self.core.compile_model(model, "CPU", self.settings)
            return self.by_shape[key]


class _Request:
    """An infer request with the arrays its inputs are bound to."""

    def __init__(self, request: Any, bound: list[np.ndarray]) -> None:
        self.infer, self.bound = request.infer, bound
        self.model_outputs = request.model_outputs


def build(module: fx.GraphModule, signature: Signature) -> openvino.Model:
    """The graph as an openvino.Model with the free dimensions free."""
    import_openvino()
    from .openvino_ops import Unsupported

    try:
        return Builder(module, signature).build()
    except Unsupported:
        return convert_by_frontend(module, signature)


class Builder:
    """Walks the graph once; `values` holds what each node has become."""

    def __init__(self, module: fx.GraphModule, signature: Signature) -> None:
        import openvino
        import openvino.opset15 as ov

        from . import openvino_shapes
        from .openvino_ops import TABLE, Unsupported

        del openvino_shapes  # imported for its entries in the table
        self.openvino, self.ov, self.table, self.unsupported = openvino, ov, TABLE, Unsupported
        self.module, self.signature = module, signature
        self.values: dict[fx.Node, Any] = {}

    def build(self) -> openvino.Model:
        """The whole model; raises Unsupported, naming the node, if the table does not do."""
        inputs = iter(self.signature.inputs)
        parameters = []
        for node in self.module.graph.nodes:
            if node.op == "placeholder":
                parameters.append(self.parameter(*next(inputs), node.name))
                self.values[node] = parameters[-1].output(0)
            elif node.op == "call_function":
                self.values[node] = self.call(node)
            elif node.op == "output":
                results = [self.result(v) for v in node.args[0]]
        return self.openvino.Model(results, parameters, "octavo")

    def parameter(self, dtype: str, shape: tuple[int | None, ...], name: str) -> Any:
        """A model input."""
        free = self.openvino.PartialShape([-1 if d is None else d for d in shape])
        kind = np.dtype(np.float32 if dtype in ("float16", "bfloat16", "float64") else dtype)
        parameter = self.ov.parameter(free, self.openvino.Type(kind), name)
        parameter.output(0).set_names({name})
        return parameter

    def result(self, node: Any) -> Any:
        """A model output."""
        value = self.load(node)
        if not isinstance(value, self.openvino.Output):
            raise self.unsupported("an output that is not a tensor")
        return self.ov.result(value)

    def load(self, node: Any) -> Any:
        """What a node has become; tensors become constants when first read."""
        if isinstance(node, fx.Node) and node not in self.values:
            self.values[node] = self.constant(attribute(self.module, str(node.target)))
        return self.values[node] if isinstance(node, fx.Node) else node

    def constant(self, tensor: Tensor) -> Any:
        """A tensor as a constant."""
        array = tensor.detach().cpu().contiguous().numpy()
        return self.ov.constant(array, shared_memory=False).output(0)

    def call(self, node: fx.Node) -> Any:
        """Lower one operator."""
        target = getattr(node.target, "overloadpacket", node.target)
        if target in SPECIAL:
            value = SPECIAL[target](self, node)
        elif target in self.table:
            args, kwargs = fx.map_arg((node.args, node.kwargs), self.load)
            value = self.table[target](*_plain(args), **_plain(kwargs))
        else:
            raise self.unsupported(f"no entry for {describe(node)}")
        return self.named(value, node)

    def named(self, value: Any, node: fx.Node) -> Any:
        """A new openvino node as its output, named by module path; anything else as it is."""
        if isinstance(value, self.openvino.Node):
            value.friendly_name = f"{module_path(node)}/{node.name}".strip("/")
            return value.output(0)
        return value


def _plain(value: Any) -> Any:
    """torch.fx's immutable lists as lists."""
    if isinstance(value, dict):
        return {k: _plain(v) for k, v in value.items()}
    if isinstance(value, list):
        return [_plain(v) for v in value]
    return tuple(_plain(v) for v in value) if isinstance(value, tuple) else value


# ---- the operators that look at the graph around them


def passes_grid(node: fx.Node) -> bool:
    """Whether a quantize only restores the grid its input came from, as around a max pool."""
    inner = node.args[0]
    source = inner.args[0] if isinstance(inner, fx.Node) and inner.args else None
    if not isinstance(source, fx.Node) or source.target is not ops.dequantize:
        return False
    packet = getattr(inner.target, "overloadpacket", None)
    keeps = packet in GRID_KEEPING and source.args[1:3] == node.args[1:3]
    return keeps and inner.target is not aten.pad.default


GRID_KEEPING = {
    *(aten.max_pool1d, aten.max_pool2d, aten.max_pool3d),
    *(aten.upsample_nearest1d, aten.upsample_nearest2d, aten.upsample_nearest3d),
    *(aten.reflection_pad1d, aten.reflection_pad2d, aten.replication_pad2d),
    *(aten.pad, aten.constant_pad_nd),
}


def _quantize(b: Builder, node: fx.Node) -> Any:
    x, scale, zero_point, qmin, qmax = node.args[:5]
    if passes_grid(node):
        return b.load(x)
    s, z = (attribute(b.module, n.target).cpu().double() for n in (scale, zero_point))
    low, high = (b.constant(((q - z) * s).float()) for q in (qmin, qmax))
    return b.ov.fake_quantize(b.load(x), low, high, low, high, qmax - qmin + 1)


def _dequantize(b: Builder, node: fx.Node) -> Any:
    q = node.args[0]
    return weight(b, node) if q.op == "get_attr" else b.load(q)


def weight(b: Builder, node: Any, shape: list[int] | None = None) -> Any:
    """A weight, int8 with its scales or float, in another shape if need be."""
    if node.target is not ops.dequantize:
        if node.op != "get_attr":
            raise b.unsupported("a weight that the model computes")
        value = attribute(b.module, node.target)
        return b.constant(value if shape is None else value.reshape(shape))
    q, scale = (attribute(b.module, n.target) for n in node.args[:2])
    axis = node.args[3]
    scale = scale.view([-1 if d == axis else 1 for d in range(q.dim())])
    if shape is not None:
        scale = scale.expand([s if d == axis else 1 for d, s in enumerate(q.shape)])
        scale = _grouped(scale, shape, axis)
        q = q.reshape(shape)
    f32 = b.ov.convert(b.constant(q), "f32")
    return b.ov.multiply(f32, b.constant(scale)).output(0)


def _grouped(scale: Tensor, shape: list[int], axis: int) -> Tensor:
    """Scales of a weight that was split into groups along axis 0."""
    if axis == 0:
        return scale.reshape([shape[0], shape[1], *[1] * (len(shape) - 2)])
    return scale.reshape([1, 1, shape[2], *[1] * (len(shape) - 3)])


def _padding(padding: Any, spatial: int) -> tuple[list[int], list[int], str]:
    if isinstance(padding, str):
        same = padding == "same"
        return [0] * spatial, [0] * spatial, "SAME_UPPER" if same else "VALID"
    padding = list(padding) * (spatial if len(padding) == 1 else 1)
    return padding, padding, "EXPLICIT"


def _with_bias(b: Builder, y: Any, bias: Any, spatial: int) -> Any:
    if bias is None:
        return y
    value = attribute(b.module, bias.target).detach()
    return b.ov.add(y, b.constant(value.view([1, -1] + [1] * spatial)))


def _conv(b: Builder, node: fx.Node) -> Any:
    x, w, bias, stride, padding, dilation, groups = node.args
    spatial = w.meta["val"].dim() - 2 if "val" in w.meta else _weight_dim(b, w) - 2
    begin, end, auto = _padding(padding, spatial)
    stride, dilation = (list(v) * (spatial if len(v) == 1 else 1) for v in (stride, dilation))
    if groups == 1:
        y = b.ov.convolution(b.load(x), weight(b, w), stride, begin, end, dilation, auto)
    else:
        out, rest = _weight_shape(b, w)[0], _weight_shape(b, w)[1:]
        kernel = weight(b, w, [groups, out // groups, *rest])
        y = b.ov.group_convolution(b.load(x), kernel, stride, begin, end, dilation, auto)
    return _with_bias(b, y, bias, spatial)


def _conv_transpose(b: Builder, node: fx.Node) -> Any:
    x, w, bias, stride, padding, output_padding, groups, dilation = node.args
    shape = _weight_shape(b, w)
    spatial = len(shape) - 2
    stride, padding, dilation, extra = (
        list(v) * (spatial if len(v) == 1 else 1)
        for v in (stride, padding, dilation, output_padding)
    )
    options = {
        "strides": stride,
        "pads_begin": padding,
        "pads_end": padding,
        "dilations": dilation,
        "output_padding": extra,
    }
    if groups == 1:
        y = b.ov.convolution_backprop_data(b.load(x), weight(b, w), **options)
    else:
        kernel = weight(b, w, [groups, shape[0] // groups, *shape[1:]])
        y = b.ov.group_convolution_backprop_data(b.load(x), kernel, **options)
    return _with_bias(b, y, bias, spatial)


def _linear(b: Builder, node: fx.Node) -> Any:
    x, w, bias = node.args
    y = b.ov.matmul(b.load(x), b.load(w), False, True)
    return y if bias is None else b.ov.add(y, b.load(bias))


def _weight_shape(b: Builder, node: Any) -> list[int]:
    if node.target is ops.dequantize:
        node = node.args[0]
    if node.op != "get_attr":
        raise b.unsupported("a weight that the model computes")
    return list(attribute(b.module, node.target).shape)


def _weight_dim(b: Builder, node: Any) -> int:
    return len(_weight_shape(b, node))


SPECIAL: dict[Any, Callable[[Builder, fx.Node], Any]] = {
    torch.ops.octavo.quantize: _quantize,
    torch.ops.octavo.dequantize: _dequantize,
    aten.conv1d: _conv,
    aten.conv2d: _conv,
    aten.conv3d: _conv,
    aten.conv_transpose1d: _conv_transpose,
    aten.conv_transpose2d: _conv_transpose,
    aten.conv_transpose3d: _conv_transpose,
    aten.linear: _linear,
}


# ---- any other graph


def convert_by_frontend(module: fx.GraphModule, signature: Signature) -> openvino.Model:
    """The graph through OpenVINO's PyTorch frontend, which knows several hundred operators."""
    raise EngineError("not yet")
