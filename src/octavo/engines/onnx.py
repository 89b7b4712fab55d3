"""ONNX: the graph in QDQ form, and the engine that runs it in ONNX Runtime.

torch.onnx translates the ATen operators; Octavo's own become QuantizeLinear and DequantizeLinear,
which ONNX Runtime fuses with what is between them into integer kernels.
"""

from __future__ import annotations

import contextlib
import copy
import io
import tempfile
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, fx
from torch.export import Dim

from .. import ops
from ..capture import Signature, quiet
from ..errors import EngineError, FormatError
from ..tensors import attribute, new_attribute, own_path
from . import register_engine
from .openvino import EngineModel
from .unsigned import make_unsigned

if TYPE_CHECKING:
    from ..model import QuantizedModel

aten = torch.ops.aten

OPSET = 21
SPLITS = {aten.split, aten.split_with_sizes, aten.chunk, aten.unbind}
MISSING = "needs the packages onnx, onnxscript and onnxruntime: pip install octavo[onnx]"


def to_onnx(module: fx.GraphModule, signature: Signature, path: Path) -> None:
    """Write a quantized graph as an ONNX file; FormatError for what ONNX cannot hold."""
    try:
        import onnx
        import onnxscript  # noqa: F401
    except ImportError as e:
        raise FormatError(f"export to ONNX {MISSING}") from e

    free = tuple(
        {i: Dim.DYNAMIC for i, d in enumerate(s) if d is None} for _, s in signature.inputs
    )
    names = [n.name for n in module.graph.nodes if n.op == "placeholder"]
    try:
        with torch.no_grad(), quiet(), contextlib.redirect_stdout(io.StringIO()):
            program = torch.export.export(
                _as_onnx_has_it(module), signature.examples(2), dynamic_shapes=free
            )
            torch.onnx.export(
                program,
                f=path,
                opset_version=OPSET,
                input_names=names,
                custom_translation_table=_translations(),
                external_data=False,
                optimize=False,
                verbose=False,
            )
        onnx.checker.check_model(path, full_check=True)
    except Exception as e:
        line = next(iter(str(e).strip().splitlines()), "")
        reason = f"{type(e).__name__}: {line}"
        raise FormatError(f"this model cannot be written as ONNX: {reason}") from e


def _translations() -> dict[Any, Any]:
    from onnxscript import opset21 as op

    def quantize(x, scale, zero_point, qmin, qmax, dtype, axis=None):  # type: ignore[no-untyped-def]
        return op.QuantizeLinear(x, scale, zero_point, axis=1 if axis is None else axis)

    def dequantize(q, scale, zero_point=None, axis=None):  # type: ignore[no-untyped-def]
        return op.DequantizeLinear(q, scale, zero_point, axis=1 if axis is None else axis)

    def hardtanh(x, min_val=-1.0, max_val=1.0):  # type: ignore[no-untyped-def]
        # bounds as constants, without the casts of torch.onnx, which hide them from ONNX Runtime
        bounds = (op.Constant(value_float=float(v)) for v in (min_val, max_val))
        return op.Clip(x, *bounds)

    return {ops.quantize: quantize, ops.dequantize: dequantize, aten.hardtanh.default: hardtanh}


def _as_onnx_has_it(module: fx.GraphModule) -> fx.GraphModule:
    """A copy of the graph in which zero_points have the type of the integers, as ONNX has them.

    An `unrounded` value is rounded: no runtime of ONNX adds to sums. Integers are split as
    floats: ONNX Runtime splits no bytes. On x86 it has kernels for uint8 activations only, for
    weights whose zero_points are told, and for a bias of integers in the scale of the sums.
    """
    module = copy.deepcopy(module)
    make_unsigned(module)
    for node in module.graph.find_nodes(op="call_function", target=aten.linear.default):
        _round_bias(module, node)
    typed: dict[fx.Node, fx.Node] = {}
    for node in module.graph.nodes:
        if node.target is ops.unrounded:
            node.replace_all_uses_with(_rounded(module, node, typed))
        elif node.target is ops.quantize:
            node.update_arg(2, _typed(module, node.args[2], node.args[5], typed))
        elif node.target is ops.dequantize and node.args[0].op == "get_attr":
            _give_zero_points(module, node)
        elif node.target is ops.dequantize and node.args[2:] and node.args[2] is not None:
            node.update_arg(2, _typed(module, node.args[2], None, typed))
    for node in module.graph.nodes:
        if getattr(node.target, "overloadpacket", None) in SPLITS:
            _split_floats(module.graph, node)
    module.graph.eliminate_dead_code()
    module.recompile()
    return module


def _typed(
    module: fx.GraphModule,
    zero_point: Any,
    dtype: torch.dtype | None,
    typed: dict[fx.Node, fx.Node],
) -> fx.Node:
    if zero_point not in typed:
        assert dtype is not None  # a value is quantized before it is dequantized
        value = attribute(module, zero_point.target).to(dtype)
        with module.graph.inserting_after(zero_point):
            path = own_path("typed", zero_point.name, "zero_point")
            typed[zero_point] = new_attribute(module, path, value)
    return typed[zero_point]


def _rounded(module: fx.GraphModule, node: fx.Node, typed: dict[fx.Node, fx.Node]) -> fx.Node:
    x, scale, zero_point, qmin, qmax = node.args
    dtype = torch.uint8 if qmin == 0 else torch.int8
    with module.graph.inserting_before(node):
        zero = _typed(module, zero_point, dtype, typed)
        q = module.graph.call_function(ops.quantize, (x, scale, zero, qmin, qmax, dtype))
        return module.graph.call_function(ops.dequantize, (q, scale, zero))


def _give_zero_points(module: fx.GraphModule, node: fx.Node) -> None:
    """The zeros that an int8 weight leaves out."""
    weight, scale = node.args[:2]
    zeros = torch.zeros_like(attribute(module, scale.target), dtype=torch.int8)
    if attribute(module, weight.target).dtype is torch.int8:
        with module.graph.inserting_before(node):
            path = own_path("zeros", node.name)
            node.update_arg(2, new_attribute(module, path, zeros))


def _round_bias(module: fx.GraphModule, linear: fx.Node) -> None:
    """The bias as int32 of input scale times weight scale: far finer than what it is added to."""
    x, weight, bias = (*linear.args, None)[:3]
    both = (x, weight, bias)
    if not all(isinstance(n, fx.Node) for n in both) or bias.op != "get_attr":
        return
    if x.target is not ops.dequantize or weight.target is not ops.dequantize:
        return
    scales = [attribute(module, n.args[1].target) for n in (x, weight)]
    scale = scales[0] * scales[1]
    integers = (attribute(module, bias.target) / scale).round()
    if integers.abs().max() >= 2**31:
        return
    with module.graph.inserting_before(linear):
        path = own_path("rounded", linear.name, "bias")
        q = new_attribute(module, path, integers.to(torch.int32))
        s = new_attribute(module, f"{path}_scale", scale)
        linear.update_arg(2, module.graph.call_function(ops.dequantize, (q, s, None, 0)))


def _split_floats(graph: fx.Graph, split: fx.Node) -> None:
    source: Any = split.args[0]
    while source.target is not ops.quantize:
        if source.op != "call_function" or source.target is ops.dequantize:
            return  # floats already
        source = source.args[0]
    scale, zero_point, *integers = source.args[1:6]
    with graph.inserting_before(split):
        x = graph.call_function(ops.dequantize, (split.args[0], scale, zero_point))
    split.update_arg(0, x)
    for part in list(split.users):
        with graph.inserting_after(part):
            q = graph.call_function(ops.quantize, (part, scale, zero_point, *integers))
        part.replace_all_uses_with(q, lambda user, q=q: user is not q)  # type: ignore[misc]


@register_engine("onnxruntime")
def onnxruntime_engine(model: QuantizedModel, threads: int | None = None) -> EngineModel:
    """Compile for ONNX Runtime's CPU kernels; any batch size.

    threads: at most so many; default as ONNX Runtime decides, all physical cores.
    """
    try:
        import onnxruntime
    except ImportError as e:
        raise EngineError(f"the engine 'onnxruntime' {MISSING}") from e
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    if threads is not None:
        options.intra_op_num_threads = threads
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        path = Path(folder, "model.onnx")
        try:
            to_onnx(model.graph_module, model.signature, path)
            session = onnxruntime.InferenceSession(path, options, ["CPUExecutionProvider"])
        except FormatError as e:
            raise EngineError(str(e)) from e
    return OnnxModel(session, model.signature)


class OnnxModel(EngineModel):
    """A session of ONNX Runtime, called like the model."""

    def __init__(self, session: Any, signature: Signature) -> None:
        super().__init__(signature)
        self.session = session
        self.inputs = [(i.name, i.type) for i in session.get_inputs()]

    def run(self, inputs: Sequence[Tensor]) -> list[Tensor]:
        """One inference on the flat tensors of a call."""
        given = {
            name: (t.float() if kind == "tensor(float)" else t).contiguous().numpy(force=True)
            for (name, kind), t in zip(self.inputs, inputs, strict=True)
        }
        return [torch.from_numpy(r) for r in self.session.run(None, given)]
