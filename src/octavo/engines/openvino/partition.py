"""Models that OpenVINO can run only in part: the rest runs in PyTorch.

The graph is cut into stretches, in turns one that OpenVINO runs and one that it cannot, such as
Fourier transforms. Float tensors go from stretch to stretch; constants, sizes and integers on a
grid are made again in each stretch that reads them, so that a quantize is never torn from its
dequantize (torch.fx's split_module would hand them over).
"""

from __future__ import annotations

import contextlib
import dataclasses
import warnings
from collections.abc import Sequence
from typing import Any

import torch
import torch.utils._pytree as pytree
from torch import Tensor, fx
from torch._dispatch.python import enable_python_dispatcher
from torch._ops import OpOverload
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx.experimental.symbolic_shapes import DimDynamic, ShapeEnv, StatelessSymbolicContext

from ...capture.signature import Signature, input_form
from ...errors import EngineError, PartitionWarning
from ...graph import ops
from ...graph.names import full_name, operator_name
from ...graph.operators import operator_of
from ..base import EngineModel
from .build import WEIGHTED
from .engine import CompiledModel, build
from .frontend import LENGTHS, convert_by_frontend
from .ops import TABLE

KNOWN = {*TABLE, *WEIGHTED, *(op.overloadpacket for op in ops.ALL)}
GRID = {torch.uint8, torch.int8}
REAL = GRID | {torch.float32, torch.bool, torch.int16, torch.int32, torch.int64}
UNNAMED = {"quantize", "dequantize", "fuse_in_accumulator", "requantize_hint", "sym_size"}


class PartitionedModel(EngineModel):
    """A model of which OpenVINO runs some stretches and PyTorch the others."""

    def __init__(
        self, core: Any, module: fx.GraphModule, signature: Signature, settings: dict[str, Any]
    ) -> None:
        super().__init__(signature)
        self.placeholders = module.graph.find_nodes(op="placeholder")
        self.stretches = Partition(module, signature).stretches()
        for stretch in self.stretches:
            stretch.compile(core, settings)
        names = self.in_pytorch
        more = f" and {len(names) - 10} more" if len(names) > 10 else ""
        warnings.warn(
            f"OpenVINO cannot run all of this model; in PyTorch run {', '.join(names[:10])}{more} "
            "(the compiled model's `in_pytorch` lists them)",
            PartitionWarning,
            stacklevel=6,  # the call of QuantizedModel.compile
        )

    @property
    def in_pytorch(self) -> tuple[str, ...]:
        """Module path and name of each operator that PyTorch runs."""
        return tuple(n for s in self.stretches if s.compiled is None for n in s.names)

    @torch.no_grad()
    def run(self, inputs: Sequence[Tensor]) -> Sequence[Any]:
        """See `EngineModel.run`."""
        values: dict[fx.Node, Any] = {}
        for node, tensor, (dtype, _) in zip(
            self.placeholders, inputs, self.signature.inputs, strict=True
        ):
            values[node] = tensor.to("cpu", getattr(torch, dtype))
        for stretch in self.stretches:
            outputs = stretch.run([values[n] for n in stretch.inputs])
            values.update(zip(stretch.results, outputs, strict=False))
        return outputs  # the last stretch has the model's


class Partition:
    """Which nodes OpenVINO can run, and in which stretch each value is computed.

    Stretches are numbered in the order they run: OpenVINO's are even, PyTorch's odd. A value is
    computed in the first of its kind that is not before those of what it reads.
    """

    def __init__(self, module: fx.GraphModule, signature: Signature) -> None:
        self.module, self.signature = module, signature
        self.values = _values(module, signature)
        self.converted: dict[str, bool] = {}
        self.fits: dict[fx.Node, bool] = {}
        self.number: dict[fx.Node, int] = {}
        reads: dict[fx.Node, set[fx.Node]] = {}  # of other stretches, perhaps
        for node in module.graph.nodes:
            inputs = node.all_input_nodes
            reads[node] = {r for i in inputs for r in ([i] if self.crosses(i) else reads[i])}
            within = all(self.crosses(i) or self.fits[i] for i in inputs)
            self.fits[node] = node.op == "get_attr" or (within and self.runs(node))
            if node.op == "placeholder":
                self.number[node] = -2
            elif self.crosses(node):
                kind = 0 if self.fits[node] else 1
                after = (self.number[r] for r in reads[node])
                self.number[node] = max([-kind, *(n + (n + kind) % 2 for n in after)])

    def crosses(self, node: fx.Node) -> bool:
        """Whether a value is handed from stretch to stretch; others are made again in each."""
        value, args = self.values.get(node), node.args
        weight = node.target is ops.dequantize and args[0].op == "get_attr"
        tensor = isinstance(value, Tensor) and value.dtype not in GRID
        return node.op == "placeholder" or (tensor and node.op != "get_attr" and not weight)

    def runs(self, node: fx.Node) -> bool:
        """Whether OpenVINO runs a node: of real numbers, in the table or converted alone."""
        values = [self.values.get(n) for n in (node, *node.all_input_nodes)]
        if node.op != "call_function" or not all(map(_is_real, pytree.tree_leaves(values))):
            return False
        if getattr(node.target, "overloadpacket", node.target) in KNOWN:
            return True
        args = fx.map_arg((node.args, node.kwargs), lambda n: str(self.values[n]))
        key = f"{node.target} {args}"
        if key not in self.converted:
            alone = Stretch(self, [node] if isinstance(values[0], Tensor) else list(node.users))
            alone.give(alone.own)
            try:
                convert_by_frontend(alone.module, alone.signature)
                self.converted[key] = True
            except EngineError:
                self.converted[key] = False
        return self.converted[key]

    def stretches(self) -> list[Stretch]:
        """All in the order they run; the last returns what the model returns."""
        own: dict[int, list[fx.Node]] = {}
        for node, number in self.number.items():
            own.setdefault(number, []).append(node)
        found = [Stretch(self, own[number]) for number in sorted(own) if number > -2]
        output = self.module.graph.output_node()
        last = Stretch(self, [], output.all_input_nodes)
        wanted = {n for stretch in (*found, last) for n in stretch.inputs}
        for stretch in found:
            stretch.give([n for n in stretch.own if n in wanted])
        last.give(output.args[0])
        return [*found, last]


class Stretch:
    """A part of a graph as a graph of its own: what it computes itself and what that reads."""

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
        """Whether another stretch computes it."""
        return self.partition.crosses(node) and node not in self.own

    def give(self, results: Any) -> None:
        """Return these values and compute no others."""
        self.results = results
        self.graph.output(tuple(fx.map_arg(results, self.copies.__getitem__)))
        self.graph.eliminate_dead_code()
        self.module = fx.GraphModule(self.partition.module, self.graph)

    @property
    def signature(self) -> Signature:
        """With the stretch's inputs."""
        forms = tuple(input_form(self.partition.values[n]) for n in self.inputs)
        return dataclasses.replace(self.partition.signature, inputs=forms)

    @property
    def names(self) -> list[str]:
        """Module path and name of each operator."""
        nodes = [n for n in self.graph.nodes if isinstance(n.target, OpOverload)]
        nodes = [n for n in nodes if operator_name(n) not in UNNAMED]
        return [full_name(n) for n in nodes]

    def compile(self, core: Any, settings: dict[str, Any]) -> None:
        """Let OpenVINO run it, if it can and there is work that is worth the call."""
        fits = self.own and all(self.partition.fits[n] for n in self.own)
        if fits and any(operator_of(n).macs for n in self.graph.nodes):
            with contextlib.suppress(EngineError):
                built = build(self.module, self.signature)
                self.compiled = CompiledModel(core, built, self.signature, settings)

    def run(self, inputs: Sequence[Tensor]) -> Sequence[Any]:
        """The results; in PyTorch from now on if OpenVINO turns out not to run it."""
        if (compiled := self.compiled) is None:
            return self.module(*inputs)
        try:
            return compiled.run(inputs)
        except (EngineError, RuntimeError):
            results = self.module(*inputs)  # raises if it is the inputs that are wrong
            self.compiled = None
            return results


def _values(module: fx.GraphModule, signature: Signature) -> dict[fx.Node, Any]:
    """What each node computes, as tensors without data; empty where that cannot be told."""
    for length in LENGTHS:
        mode = FakeTensorMode(shape_env=ShapeEnv(), allow_non_fake_inputs=True)
        inputs = []
        for t, (_, shape) in zip(signature.examples(length), signature.inputs, strict=True):
            sizes = [DimDynamic.DYNAMIC if d is None else DimDynamic.STATIC for d in shape]
            inputs.append(mode.from_tensor(t, symbolic_context=StatelessSymbolicContext(sizes)))
        run = fx.Interpreter(module, garbage_collect_values=False)
        with contextlib.suppress(Exception), torch.no_grad(), enable_python_dispatcher(), mode:
            run.run(*inputs)
            free: list[Any] = [d for t in inputs for d in t.shape if type(d) is not int]
            if all(d.node.maybe_as_int() is None for d in free):  # no operator has fixed one
                return run.env
    return {}


def _is_real(value: Any) -> bool:
    is_size = isinstance(value, int | torch.SymInt)
    return is_size or (isinstance(value, Tensor) and value.dtype in REAL)
