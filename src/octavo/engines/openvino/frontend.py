"""Single operators that the table lacks, by OpenVINO's PyTorch frontend, each checked.

The frontend knows several hundred operators, but fixes a free size here and there without a word.
So each operator is converted alone and compared with PyTorch, on values it has in the model, at
several sizes; the rest of the model is built from the table around it.
"""

from __future__ import annotations

import contextlib
import operator
from collections.abc import Sequence
from functools import cached_property
from typing import Any

import openvino
import openvino.opset15 as ov
import torch
from openvino.frontend.pytorch.fx_decoder import TorchFXPythonDecoder
from torch import Tensor, fx
from torch._dispatch.python import enable_python_dispatcher
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.export import Dim
from torch.fx.experimental.symbolic_shapes import DimDynamic, ShapeEnv, StatelessSymbolicContext

from ...capture.examples import calls
from ...capture.export import quiet
from ...capture.signature import Signature, input_form
from ...graph.compare import difference
from ...graph.interpreter import observe_values
from ...graph.names import full_name
from ..base import examples
from .compiled import openvino_core
from .table import Unsupported

LEAST = 50.0  # dB: OpenVINO approximates some functions
Values = dict[fx.Node, Any]


class OperatorConverter:
    """Converts operators of one graph, on demand."""

    def __init__(self, module: fx.GraphModule, signature: Signature) -> None:
        self.module, self.signature = module, signature
        self._converted: dict[fx.Node, openvino.Model | None] = {}

    @cached_property
    def runs(self) -> list[Values]:
        """The values of all nodes in PyTorch, on each example of the model's inputs that runs."""

        def run(*inputs: Tensor) -> Values:
            values: Values = {}
            observe_values(self.module, inputs, values.__setitem__)
            return values

        return [values for _, values in calls(examples(self.signature), run)]

    @cached_property
    def symbolic(self) -> Values:
        """The value of each node with symbols for free sizes; empty if not known."""
        return symbolic_values(self.module, self.signature)

    def value(self, node: fx.Node) -> Any:
        """A node's value: a tensor without data, or one of those it had; None if not known."""
        return self.symbolic.get(node, self.runs[0].get(node) if self.runs else None)

    def form(self, node: fx.Node) -> tuple[str, tuple[int | None, ...]]:
        """Dtype and shape of a tensor; None where its size is symbolic, or differed."""
        dtype, shape = input_form(self.value(node))
        shapes = [values[node].shape for values in self.runs]
        if any(len(other) != len(shape) for other in shapes):
            raise Unsupported("its number of dimensions depends on sizes", node)
        varied = [len(set(sizes)) > 1 for sizes in zip(*shapes, strict=True)]
        varied = varied or [False] * len(shape)
        return dtype, tuple(None if v else d for d, v in zip(shape, varied, strict=True))

    def inputs(self, node: fx.Node) -> list[fx.Node]:
        """The tensors that a node is computed from, through sizes and constants."""
        return [n for n in self._sources(node) if self._is_tensor(n)]

    def is_list(self, node: fx.Node) -> bool:
        """Whether the operator returns several tensors."""
        return not isinstance(self.runs[0][node], Tensor)

    def convert(self, node: fx.Node) -> openvino.Model | None:
        """A model of the operator alone, of `inputs(node)`; None if there is none that is right."""
        if node not in self._converted:
            try:
                model = self._convert(node)
            except Exception:  # whatever the exporter and the frontend do not know
                model = None
            self._converted[node] = model
        return self._converted[node]

    def _convert(self, node: fx.Node) -> openvino.Model | None:
        if not self.runs or not self._is_result(self.runs[0].get(node)):
            return None
        inputs = self.inputs(node)
        alone = self._alone(node, inputs)
        calls = [tuple(values[n] for n in inputs) for values in self.runs]
        forms = [self.form(n)[1] for n in inputs]
        free = tuple({d: Dim.AUTO for d, n in enumerate(shape) if n is None} for shape in forms)

        def least(call: Sequence[Tensor]) -> int:  # a size of 1 would be specialised
            pairs = zip(call, free, strict=True)
            return min((t.shape[d] for t, dims in pairs for d in dims), default=0)

        example = max(calls, key=least)
        with torch.no_grad(), quiet():
            program = torch.export.export(alone, example, dynamic_shapes=free)
            model = openvino.convert_model(TorchFXPythonDecoder.from_exported_program(program))
        compiled = openvino_core().compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
        for call, values in zip(calls, self.runs, strict=True):
            got = compiled([t.contiguous().numpy(force=True) for t in call]).to_tuple()
            if difference(_leaves(values[node]), [torch.from_numpy(g) for g in got], LEAST):
                return None
        _name(model, node)
        return model

    def _alone(self, node: fx.Node, inputs: Sequence[fx.Node]) -> fx.GraphModule:
        """A graph of the operator, and of the sizes it is given."""
        graph = fx.Graph()
        copies = {n: graph.placeholder(n.name) for n in inputs}
        for n in sorted({node, *self._sources(node)} - copies.keys()):
            copies[n] = graph.node_copy(n, copies.__getitem__)
        value = self.runs[0][node]
        parts = [copies[node]]
        if not isinstance(value, Tensor):
            call = graph.call_function
            parts = [call(operator.getitem, (copies[node], i)) for i in range(len(value))]
        graph.output(tuple(parts))
        return fx.GraphModule(self.module, graph)

    def _sources(self, node: fx.Node) -> list[fx.Node]:
        """What a node is computed from, back to the nearest tensors."""
        found: list[fx.Node] = []
        todo = node.all_input_nodes
        while todo:
            n = todo.pop()
            if n not in found:
                found.append(n)
                todo += [] if self._is_tensor(n) else n.all_input_nodes
        return sorted(found)

    def _is_tensor(self, node: fx.Node) -> bool:
        return node.op != "get_attr" and isinstance(self.runs[0].get(node), Tensor)

    def _is_result(self, value: Any) -> bool:
        return isinstance(value, Tensor) or (
            isinstance(value, list | tuple) and all(isinstance(v, Tensor) for v in value)
        )


def splice(model: openvino.Model, inputs: Sequence[openvino.Output]) -> list[openvino.Output]:
    """Connect a converted operator to the outputs it reads; returns its own."""
    model = model.clone()
    for parameter, value in zip(model.get_parameters(), inputs, strict=True):
        kind = parameter.get_element_type()
        same = value.get_element_type() == kind
        parameter.output(0).replace(value if same else ov.convert(value, kind).output(0))
    return [r.input_value(0) for r in model.get_results()]


def _fixed_size(size: Any) -> int | None:
    """A size if tracing has fixed it, also where it still has a symbol; None if it is dynamic."""
    return size if type(size) is int else size.node.maybe_as_int()


def _leaves(value: Any) -> list[Any]:
    return [value] if isinstance(value, Tensor) else list(value)


def _name(model: openvino.Model, node: fx.Node) -> None:
    """Name its operators by module path, as the table does, instead of by the frontend's names."""
    for op in model.get_ordered_ops():
        if op.get_type_name() not in ("Parameter", "Result", "Constant"):
            rest = op.get_friendly_name().rpartition("/")[2]
            op.friendly_name = f"{full_name(node)}.{rest}"


def symbolic_values(module: fx.GraphModule, signature: Signature) -> Values:
    """The value of each node as a tensor without data; empty if the shapes cannot be inferred."""
    for tensors in examples(signature):
        mode = FakeTensorMode(shape_env=ShapeEnv(), allow_non_fake_inputs=True)
        inputs = []
        for t, (_, shape) in zip(tensors, signature.inputs, strict=True):
            sizes = [DimDynamic.DYNAMIC if d is None else DimDynamic.STATIC for d in shape]
            inputs.append(mode.from_tensor(t, symbolic_context=StatelessSymbolicContext(sizes)))
        values: Values = {}
        with contextlib.suppress(Exception), enable_python_dispatcher(), mode:
            observe_values(module, inputs, values.__setitem__)
            forms = [[_fixed_size(d) for d in t.shape] for t in inputs]
            if forms == [list(shape) for _, shape in signature.inputs]:  # no operator fixed a size
                return values
    return {}
