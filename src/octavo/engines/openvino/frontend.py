"""Conversion by OpenVINO's PyTorch frontend, for graphs with an operator outside the table.

The frontend reads exported programs of ATen operators, several hundred of which it knows. Octavo's
own are rewritten first: a quantize and its dequantize become `octavo::fake_quantize`, for which
the frontend is given a FakeQuantize, and an int8 weight becomes a conversion and a multiply.
"""

import copy
from typing import Any

import openvino
import openvino.opset15 as ov
import torch
from openvino.frontend.pytorch import ConversionExtension
from openvino.frontend.pytorch.fx_decoder import TorchFXPythonDecoder
from torch import Tensor, fx
from torch.export import Dim

from ...capture.export import quiet
from ...capture.signature import Signature
from ...errors import EngineError
from ...graph import ops
from ...graph.names import full_name, own_path
from ...graph.tensors import along, attribute, new_attribute
from ..base import examples
from ..qdq import Dequantize, Quantize

aten = torch.ops.aten

_lib = torch.library.Library("octavo", "FRAGMENT")
_lib.define("fake_quantize(Tensor x, Tensor low, Tensor high, int levels) -> Tensor")
torch.library.register_fake("octavo::fake_quantize", lambda x, *_: torch.empty_like(x), lib=_lib)


def _fake_quantize(context: Any) -> list[openvino.Output]:
    x, low, high = (context.get_input(i) for i in range(3))
    levels = context.get_values_from_const_input(3)
    return [ov.fake_quantize(x, low, high, low, high, levels).output(0)]


def convert_by_frontend(module: fx.GraphModule, signature: Signature) -> openvino.Model:
    """Convert the whole graph; raises EngineError with what the frontend could not convert."""
    first: Exception | None = None
    for inputs in examples(signature):
        try:
            return _convert(module, signature, inputs)
        except Exception as e:
            first = first or e
    raise EngineError(f"OpenVINO cannot convert this model: {first}") from first


def _convert(
    module: fx.GraphModule, signature: Signature, inputs: tuple[Tensor, ...]
) -> openvino.Model:
    free = tuple({i: Dim.AUTO for i, d in enumerate(s) if d is None} for _, s in signature.inputs)
    extension = ConversionExtension("octavo.fake_quantize.default", _fake_quantize)
    with torch.no_grad(), quiet():
        program = torch.export.export(fake_quantized(module), inputs, dynamic_shapes=free)
        decoder = TorchFXPythonDecoder.from_exported_program(program)
        model = openvino.convert_model(decoder, extension=[extension])
    _name(model, {n.name: n for n in decoder.fx_gm.graph.nodes})
    return model


def _name(model: openvino.Model, nodes: dict[str, fx.Node]) -> None:
    """Name nodes by module path, as the table does, instead of by the frontend's own names."""
    for op in model.get_ordered_ops():
        name, _, rest = op.get_friendly_name().partition("/")
        if op.get_type_name() == "FakeQuantize":
            op.friendly_name = f"{op.input_value(0).get_node().get_friendly_name()}.quantize"
        elif name in nodes and rest:  # "conv2d/aten.conv2d.default/Add" -> "path/conv2d.Add"
            node = full_name(nodes[name])
            op.friendly_name = f"{node}.{rest.rpartition('/')[2]}"


def fake_quantized(module: fx.GraphModule) -> fx.GraphModule:
    """A copy of the graph with fake-quantized floats in place of activations' integers."""
    module = copy.deepcopy(module)
    for node in reversed(module.graph.nodes):  # a node's inputs are rewritten after it
        if (q := Quantize.of(module, node)) is not None:
            node.replace_all_uses_with(_fake_quantize_node(module, q))
        elif (d := Dequantize.of(module, node)) is not None:
            node.replace_all_uses_with(_scaled_weight(module, d) if d.is_weight else d.q)
    module.graph.eliminate_dead_code()
    module.recompile()
    return module


def _fake_quantize_node(module: fx.GraphModule, q: Quantize) -> fx.Node:
    """The fake-quantized input of `q`; the input itself where that is not needed."""
    if q.node.target is ops.requantize_hint or q.is_redundant_requantize:
        return q.x
    with module.graph.inserting_before(q.node):
        bounds = [
            new_attribute(module, own_path("bounds", q.node.name, side), value.float())
            for side, value in zip(("low", "high"), q.bounds, strict=True)
        ]
        fake_quantize = torch.ops.octavo.fake_quantize.default
        return module.graph.call_function(fake_quantize, (q.x, *bounds, q.levels))


def _scaled_weight(module: fx.GraphModule, d: Dequantize) -> fx.Node:
    """weight.to(float) * scale, which keeps the weight int8 in the openvino.Model."""
    scale = along(d.scale, d.axis, attribute(module, d.q.target).dim())
    with module.graph.inserting_before(d.node):
        s = new_attribute(module, own_path("bounds", d.node.name, "scale"), scale)
        f = module.graph.call_function(aten.to.dtype, (d.q, scale.dtype))
        return module.graph.call_function(aten.mul.Tensor, (f, s))
