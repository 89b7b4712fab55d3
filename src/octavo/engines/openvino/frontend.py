"""Any other graph: through OpenVINO's PyTorch frontend, which knows several hundred operators.

The frontend reads exported programs of ATen operators. Our two operators are first rewritten:
quantize becomes one operator on floats that stands for FakeQuantize, which the frontend is
taught, and an int8 weight becomes a conversion and a multiply.
"""

import copy

import openvino
import openvino.opset15 as ov
import torch
from openvino.frontend.pytorch import ConversionExtension
from openvino.frontend.pytorch.fx_decoder import TorchFXPythonDecoder
from torch import fx
from torch.export import Dim

from ...capture.export import quiet
from ...capture.signature import Signature
from ...errors import EngineError
from ...graph import ops
from ...graph.names import full_name, own_path
from ...graph.tensors import along, attribute, new_attribute
from .build import grid_bounds, passes_grid

aten = torch.ops.aten

_lib = torch.library.Library("octavo", "FRAGMENT")
_lib.define("fake_quantize(Tensor x, Tensor low, Tensor high, int levels) -> Tensor")
torch.library.register_fake("octavo::fake_quantize", lambda x, *_: torch.empty_like(x), lib=_lib)


def _fake_quantize(context):
    x, low, high = (context.get_input(i) for i in range(3))
    levels = context.get_values_from_const_input(3)
    return [ov.fake_quantize(x, low, high, low, high, levels).output(0)]


def convert_by_frontend(module: fx.GraphModule, signature: Signature) -> openvino.Model:
    """Convert the whole graph; raises EngineError with what the frontend could not convert."""
    first: Exception | None = None
    one_length = all(None not in shape[1:] for _, shape in signature.inputs)
    for length in LENGTHS[:1] if one_length else LENGTHS:
        try:
            return _convert(module, signature, length)
        except Exception as e:
            first = first or e
    raise EngineError(f"OpenVINO cannot convert this model: {first}") from first


# Examples of a free size other than the batch to convert with: some models need a long one.
LENGTHS = (2, 64, 4096)


def _convert(module: fx.GraphModule, signature: Signature, length: int) -> openvino.Model:
    free = tuple({i: Dim.AUTO for i, d in enumerate(s) if d is None} for _, s in signature.inputs)
    example = signature.examples(length)
    extension = ConversionExtension("octavo.fake_quantize.default", _fake_quantize)
    with torch.no_grad(), quiet():
        program = torch.export.export(in_floats(module), example, dynamic_shapes=free)
        decoder = TorchFXPythonDecoder.from_exported_program(program)
        model = openvino.convert_model(decoder, extension=[extension])
    _name(model, {n.name: n for n in decoder.fx_gm.graph.nodes})
    return model


def _name(model: openvino.Model, nodes: dict[str, fx.Node]) -> None:
    """Names by module path, as the table gives them, instead of the frontend's own."""
    for op in model.get_ordered_ops():
        name, _, rest = op.get_friendly_name().partition("/")
        if op.get_type_name() == "FakeQuantize":
            op.friendly_name = f"{op.input_value(0).get_node().get_friendly_name()}.quantize"
        elif name in nodes and rest:  # "conv2d/aten.conv2d.default/Add" -> "path/conv2d.Add"
            node = full_name(nodes[name])
            op.friendly_name = f"{node}.{rest.rpartition('/')[2]}"


def in_floats(module: fx.GraphModule) -> fx.GraphModule:
    """A copy of the graph with floats on the integers' grid where it had integers."""
    module = copy.deepcopy(module)
    graph = module.graph
    for node in graph.nodes:
        if node.target in (ops.quantize, ops.fuse_in_accumulator) and not passes_grid(node):
            low, high = grid_bounds(module, node)
            with graph.inserting_before(node):
                bounds = [
                    new_attribute(module, own_path("bounds", node.name, side), value)
                    for side, value in (("low", low), ("high", high))
                ]
                levels = node.args[4] - node.args[3] + 1
                args = (node.args[0], *bounds, levels)
                new = graph.call_function(torch.ops.octavo.fake_quantize.default, args)
            node.replace_all_uses_with(new)
        elif node.target in (ops.quantize, ops.requantize_hint):
            node.replace_all_uses_with(node.args[0])
        elif node.target is ops.dequantize and node.args[0].op == "get_attr":
            _weight_in_floats(module, node)
        elif node.target is ops.dequantize:
            node.replace_all_uses_with(node.args[0])
    graph.eliminate_dead_code()
    module.recompile()
    return module


def _weight_in_floats(module: fx.GraphModule, node: fx.Node) -> None:
    """dequantize(weight, scale, axis) -> weight.to(float) * scale, which keeps it int8 on file."""
    q, scale, _, axis = node.args
    dim = attribute(module, q.target).dim()
    view = along(attribute(module, scale.target), axis, dim)  # type: ignore[arg-type]
    with module.graph.inserting_before(node):
        s = new_attribute(module, own_path("bounds", node.name, "scale"), view)
        f = module.graph.call_function(aten.to.dtype, (q, view.dtype))
        node.replace_all_uses_with(module.graph.call_function(aten.mul.Tensor, (f, s)))
