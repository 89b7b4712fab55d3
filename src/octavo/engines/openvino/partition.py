"""Models that OpenVINO can run only in part; the rest runs in PyTorch.

The graph is cut into segments that alternate: OpenVINO runs one, and PyTorch the next, which holds
operators that OpenVINO lacks, such as Fourier transforms. Float tensors are passed from segment to
segment. Constants, sizes and quantized integers are computed again in each segment that reads them,
so that a quantize and its dequantize stay together. (torch.fx's split_module would pass them on.)
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Sequence
from typing import Any

import torch
import torch.utils._pytree as pytree
from torch import Tensor, fx
from torch._ops import OpOverload

from ...capture.signature import Signature
from ...errors import EngineError
from ...graph import ops
from ...graph.names import full_name
from ...graph.operators import is_operator, operator_of
from ..base import EngineModel
from ..qdq import Dequantize
from .build import KNOWN, Builder
from .compiled import CompiledModel
from .dynamic import is_rows
from .frontend import OperatorConverter

INTEGERS = {torch.uint8, torch.int8}  # of quantized values
REAL = INTEGERS | {torch.float32, torch.bool, torch.int16, torch.int32, torch.int64}


class PartitionedModel(EngineModel):
    """A model of which OpenVINO runs some segments and PyTorch the others.

    excluded: names of nodes that OpenVINO must not run. Raises Unsupported, naming the node, for
    another that it cannot run.
    """

    def __init__(
        self,
        converter: OperatorConverter,
        settings: dict[str, Any],
        excluded: Collection[str],
    ) -> None:
        super().__init__(converter.signature)
        self.placeholders = converter.module.graph.find_nodes(op="placeholder")
        self.segments = Partition(converter, excluded).segments()
        for segment in self.segments:
            segment.compile(settings)

    @property
    def in_pytorch(self) -> tuple[str, ...]:
        """Module path and name of each operator that PyTorch runs."""
        return tuple(n for s in self.segments if s.compiled is None for n in s.names)

    @torch.no_grad()
    def run(self, inputs: Sequence[Tensor]) -> Sequence[Any]:
        """One inference on the flat tensors of a call."""
        values: dict[fx.Node, Any] = {}
        for node, tensor, (dtype, _) in zip(
            self.placeholders, inputs, self.signature.inputs, strict=True
        ):
            values[node] = tensor.to("cpu", getattr(torch, dtype))
        for segment in self.segments:
            outputs = segment.run([values[n] for n in segment.inputs])
            values.update(zip(segment.outputs, outputs, strict=False))
        return outputs  # the last segment returns the model's


class Partition:
    """Decides which nodes OpenVINO runs, and in which segment each value is computed.

    Segments are numbered in the order they run: OpenVINO's are even, PyTorch's are odd. A value is
    computed in the first segment of its kind that does not run before those of its inputs.
    """

    def __init__(self, converter: OperatorConverter, excluded: Collection[str]) -> None:
        self.converter, self.excluded = converter, excluded
        self.module, self.signature = converter.module, converter.signature
        self.in_openvino: dict[fx.Node, bool] = {}
        self.number: dict[fx.Node, int] = {}
        reads: dict[fx.Node, set[fx.Node]] = {}  # boundary values that a node depends on
        for node in self.module.graph.nodes:
            inputs = node.all_input_nodes
            reads[node] = {r for i in inputs for r in ([i] if self.is_boundary(i) else reads[i])}
            reachable = all(self.is_boundary(i) or self.in_openvino[i] for i in inputs)
            supported = reachable and self.is_supported(node)
            self.in_openvino[node] = node.op == "get_attr" or supported
            if node.op == "placeholder":
                self.number[node] = -2
            elif self.is_boundary(node):
                kind = 0 if self.in_openvino[node] else 1
                after = (self.number[r] for r in reads[node])
                self.number[node] = max([-kind, *(n + (n + kind) % 2 for n in after)])

    def is_boundary(self, node: fx.Node) -> bool:
        """Whether a value may pass from segment to segment; others are computed in each."""
        value = self.converter.value(node)
        weight = Dequantize.of(self.module, node)
        if node.op == "get_attr" or (weight is not None and weight.is_weight):
            return False
        if node.target in ops.DYNAMIC and not is_rows(
            self.module, node
        ):  # which OpenVINO needs whole
            return False
        is_float = isinstance(value, Tensor) and value.dtype not in INTEGERS
        return node.op == "placeholder" or is_float

    def is_supported(self, node: fx.Node) -> bool:
        """Whether OpenVINO runs a node: its values are real, and it can be converted."""
        values = [self.converter.value(n) for n in (node, *node.all_input_nodes)]
        real = node.op == "call_function" and all(map(_is_real, pytree.tree_leaves(values)))
        if not real or node.name in self.excluded:
            return False
        known = getattr(node.target, "overloadpacket", node.target) in KNOWN
        return known or self.converter.convert(node) is not None

    def segments(self) -> list[Segment]:
        """All segments in the order they run; the last returns what the model returns."""
        own: dict[int, list[fx.Node]] = {}
        for node, number in self.number.items():
            own.setdefault(number, []).append(node)
        found = [Segment(self, own[number]) for number in sorted(own) if number > -2]
        output = self.module.graph.output_node()
        last = Segment(self, [], output.all_input_nodes)
        needed = {n for segment in (*found, last) for n in segment.inputs}
        for segment in found:
            segment.set_outputs([n for n in segment.own if n in needed])
        last.set_outputs(output.args[0])
        return [*found, last]


class Segment:
    """A part of the graph as a graph of its own.

    It holds the nodes in `own`, and copies of all they depend on up to the nearest boundary values,
    which are its inputs.
    """

    def __init__(
        self, partition: Partition, own: Sequence[fx.Node], roots: Sequence[fx.Node] = ()
    ) -> None:
        self.partition, self.own = partition, own
        self.inputs: list[fx.Node] = []
        self.compiled: CompiledModel | None = None
        needed: set[fx.Node] = set()
        todo = [*own, *roots]
        while todo:
            node = todo.pop()
            if node not in needed:
                needed.add(node)
                todo += [] if self.is_input(node) else node.all_input_nodes
        self.graph = fx.Graph()
        self.copies: dict[fx.Node, fx.Node] = {}
        for node in sorted(needed):
            if self.is_input(node):
                self.inputs.append(node)
                self.copies[node] = self.graph.placeholder(node.name)
            else:
                self.copies[node] = self.graph.node_copy(node, self.copies.__getitem__)

    def is_input(self, node: fx.Node) -> bool:
        """Whether another segment computes it."""
        return self.partition.is_boundary(node) and node not in self.own

    def set_outputs(self, outputs: Any) -> None:
        """Return these values, and drop the nodes that none of them needs."""
        self.outputs = outputs
        self.graph.output(tuple(fx.map_arg(outputs, self.copies.__getitem__)))
        self.graph.eliminate_dead_code()
        self.module = fx.GraphModule(self.partition.module, self.graph)

    @property
    def signature(self) -> Signature:
        """The model's signature, with the inputs of this segment."""
        forms = tuple(map(self.partition.converter.form, self.inputs))
        whole = self.partition.signature
        return dataclasses.replace(whole, inputs=forms, fixed=(), shapes=(), values=(), batch=())

    @property
    def names(self) -> list[str]:
        """Module path and name of each operator of the model."""
        nodes = [n for n in self.graph.nodes if isinstance(n.target, OpOverload)]
        nodes = [n for n in nodes if n.target not in ops.ALL and not is_operator(n, "sym_size")]
        return [full_name(n) for n in nodes]

    def compile(self, settings: dict[str, Any]) -> None:
        """Compile for OpenVINO, if it supports all nodes and a layer or product is among them."""
        supported = self.own and all(self.partition.in_openvino[n] for n in self.own)
        if supported and any(operator_of(n).macs for n in self.graph.nodes):
            originals = {copy: node for node, copy in self.copies.items()}
            builder = Builder(self.module, self.signature, self.partition.converter, originals)
            built = builder.build(guarded=True)
            settings = settings | builder.settings
            self.compiled = CompiledModel(built, self.signature, settings, builder.guarded)

    def run(self, inputs: Sequence[Tensor]) -> Sequence[Any]:
        """The outputs. If OpenVINO fails to run it, PyTorch does, now and in later calls."""
        if (compiled := self.compiled) is None:
            return self.module(*inputs)
        try:
            return compiled.run(inputs)
        except EngineError:
            outputs = self.module(*inputs)  # raises if the inputs are wrong
            self.compiled = None
            return outputs


def _is_real(value: Any) -> bool:
    is_size = isinstance(value, int | torch.SymInt)
    return is_size or (isinstance(value, Tensor) and value.dtype in REAL)
