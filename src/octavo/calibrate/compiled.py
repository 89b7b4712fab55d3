"""Observe values where the float model runs fastest: compiled, with reductions in the graph.

Most of calibration is running the float model. Compiled by OpenVINO it runs up to twice as fast as
in PyTorch, and several times where other processes are busy. The graph then returns, of each
observed value, its extremes and evenly spaced samples for the histogram: the values themselves
would take longer to copy than to compute.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, fx

from ..graph.builder import NodeBuilder
from ..graph.compare import difference
from ..graph.interpreter import observe_values
from ..graph.operators import operator_of
from .observers import Histogram, Observer
from .ranges import Ranges

aten = torch.ops.aten

WORTH_IT = 1e11  # multiply-adds observed in PyTorch before compiling pays: some seconds
EXACT = 50.0  # dB that extremes and samples must agree with PyTorch's
CHANNELS_FIRST = ("batch_norm", "_pool1d", "_pool2d", "_pool3d")
CHANNELS_LAST = ("linear", "layer_norm", "embedding", "softmax", "matmul")
FARTHEST = 64  # operators looked back for the one that says where channels are

Compile = Callable[[fx.GraphModule], Any]
Steps = Sequence[int]  # of each dimension, every how many places a value is sampled
Shapes = tuple[torch.Size, ...]


class Calibration:
    """Observes calls into `ranges`: in PyTorch at first, compiled once that pays.

    Calls whose inputs have other shapes than the compiled graph, or are not on the CPU, run in
    PyTorch; so does everything where the compiled graph finds other values than PyTorch.
    """

    def __init__(self, ranges: Ranges, compile: Compile) -> None:
        self.ranges, self.compile = ranges, compile
        self.work = 0.0
        self.run: Callable[[Sequence[Tensor]], Sequence[Tensor]] | None = None
        self.shapes: Shapes | None = None
        self.may_compile = not ranges.watches

    def observe(self, inputs: Sequence[Any]) -> None:
        """Observe the flat inputs of one call."""
        shapes = _shapes(inputs)
        if self.may_compile and shapes is not None and self.work >= WORTH_IT:
            self.may_compile = False  # once
            self.run, self.shapes = compiled(self.ranges, inputs, self.compile), shapes
        if self.run is not None and shapes == self.shapes and _finite(inputs):
            try:
                values = self.run(inputs)
            except Exception:  # what PyTorch says of this call is about the user's model
                values = None
            if values is not None:
                self.ranges.add(by_node(self.ranges.observers, values))
                return
        self.ranges.observe(inputs)
        batch = shapes[0][0] if shapes and shapes[0] else 1
        self.work += batch * sum(self.ranges.macs.values())


def _shapes(inputs: Sequence[Any]) -> Shapes | None:
    """Of the inputs; None unless all are tensors on the CPU."""
    if not inputs or not all(isinstance(t, Tensor) and t.device.type == "cpu" for t in inputs):
        return None
    return tuple(t.shape for t in inputs)


def _finite(inputs: Sequence[Tensor]) -> bool:
    """Whether no input has NaN, which the reductions of a runtime may pass over."""
    return all(bool(t.isfinite().all()) for t in inputs)


def compiled(
    ranges: Ranges, inputs: Sequence[Tensor], compile: Compile
) -> Callable[[Sequence[Tensor]], Sequence[Tensor]] | None:
    """A function from a call's inputs to what `by_node` takes; None where it is not exact."""
    module, observers = ranges.sites.graph.module, ranges.observers
    expected: dict[fx.Node, list[Tensor]] = {}
    steps: dict[fx.Node, Steps] = {}

    def see(node: fx.Node, value: Any) -> None:
        if node in observers:
            steps[node] = _steps(node, value) if isinstance(observers[node], Histogram) else ()
            expected[node] = [value.amin(), value.amax(), *_sampled(value, steps[node])]

    try:
        observe_values(module, inputs, see)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            run: Callable[[Sequence[Tensor]], Sequence[Tensor]] = compile(
                _reduced(module, list(observers), steps)
            ).run
            found = run(inputs)
    except Exception:  # whatever it is, PyTorch takes its place
        return None
    wanted = [t for node in observers for t in expected[node]]
    return None if difference(wanted, found, EXACT) else run


def by_node(
    observers: Mapping[fx.Node, Observer], values: Sequence[Tensor]
) -> dict[fx.Node, tuple[float, float, Tensor | None]]:
    """Least, largest and samples of each observed value, from the outputs of the reduced graph."""
    rest = iter(values)
    return {
        node: (float(next(rest)), float(next(rest)), next(rest) if counts else None)
        for node, counts in ((n, isinstance(o, Histogram)) for n, o in observers.items())
    }


def _reduced(
    module: fx.GraphModule, nodes: Sequence[fx.Node], steps: Mapping[fx.Node, Steps]
) -> fx.GraphModule:
    """The graph that returns extremes and samples of the nodes."""
    graph, copies = fx.Graph(), dict[fx.Node, fx.Node]()
    graph.graph_copy(module.graph, copies)
    outputs: list[fx.Node] = []
    for node in nodes:
        value = copies[node]
        build = NodeBuilder(graph, value)
        dims = list(range(value.meta["val"].dim()))
        outputs += [build(aten.amin.default, value, dims), build(aten.amax.default, value, dims)]
        if steps[node]:
            outputs.append(_sample_nodes(build, value, steps[node]))
    graph.output(tuple(outputs))
    graph.eliminate_dead_code()
    return fx.GraphModule(module, graph)


# ---- samples


def _steps(node: fx.Node, value: Tensor) -> Steps:
    """Steps that leave about as many values as are counted, and skip no channel."""
    steps, left = [1] * value.dim(), value.numel() / Histogram.counted
    dims = _places(node, value.dim())
    for i, dim in enumerate(dims):
        if left > 1:
            wanted = round(left ** (1 / (len(dims) - i)))
            steps[dim] = max(1, min(wanted, value.shape[dim]))
            left /= steps[dim]
    return steps


def _places(node: fx.Node, rank: int) -> list[int]:
    """The dimensions of a value that count places (of an image, of a sequence), not channels."""
    for _ in range(FARTHEST):
        name = operator_of(node).name
        if name.startswith("conv") or name.endswith(CHANNELS_FIRST):
            return list(range(2, rank))
        if name in CHANNELS_LAST:
            return list(range(1, rank - 1))
        value = node.meta.get("val")
        same = [n for n in node.all_input_nodes if _alike(n.meta.get("val"), value)]
        if not same:
            break
        node = same[0]
    return []


def _alike(a: Any, b: Any) -> bool:
    return isinstance(a, Tensor) and isinstance(b, Tensor) and str(a.shape) == str(b.shape)


def _sampled(value: Tensor, steps: Steps) -> list[Tensor]:
    if not steps:
        return []
    return [value[tuple(slice(None, None, step) for step in steps)]]


def _sample_nodes(build: NodeBuilder, value: fx.Node, steps: Steps) -> fx.Node:
    for dim, step in enumerate(steps):
        if step > 1:
            value = build(aten.slice.Tensor, value, dim, 0, 2**63 - 1, step)
    return value
