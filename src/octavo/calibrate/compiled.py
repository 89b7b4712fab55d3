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
from ..graph.operators import operator_of
from .observers import Histogram, Observer, even_step
from .ranges import Ranges, samples_of

aten = torch.ops.aten

# What compiling must be worth: some seconds of PyTorch's time, counted in multiply-adds, of which
# observing a number takes as long as some dozens.
WORTH_IT, OF_A_NUMBER = 1e11, 50
# Samples must agree with PyTorch's to so many dB: in float32, and where a CPU computes in bfloat16
# to less, which is still more than int8 leaves.
EXACT, IN_BFLOAT16 = 50.0, 40.0
# Extremes must agree to so much of the range: one step of the integers, or, where the histogram
# says what to clip, twice the spacing of the ranges that are tried.
STEP, SPACING = 1 / 255, 0.02
CHANNELS_FIRST = ("batch_norm", "_pool1d", "_pool2d", "_pool3d")
CHANNELS_LAST = ("linear", "layer_norm", "embedding", "softmax", "matmul")
FARTHEST = 64  # operators looked back for the one that says where channels are

Compile = Callable[[fx.GraphModule], Any]
Run = Callable[[Sequence[Tensor]], Sequence[Tensor]]
Steps = Sequence[int]  # of each dimension, every how many places a value is sampled; one: of all
Shapes = tuple[torch.Size, ...]


class Calibration:
    """Observes calls into `ranges`: in PyTorch at first, compiled if that pays.

    Calls whose inputs have other shapes than the compiled graph, or are not on the CPU, run in
    PyTorch; so does everything where the compiled graph finds other values than PyTorch.

    calls: how many there will be. If it is not known, as many are expected as there have been.
    """

    def __init__(self, ranges: Ranges, compile: Compile, calls: int | None = None) -> None:
        self.ranges, self.compile, self.calls = ranges, compile, calls
        self.done, self.work = 0, 0.0
        self.run: Run | None = None
        self.shapes: Shapes | None = None
        self.may_compile = not ranges.watches

    def observe(self, inputs: Sequence[Any]) -> None:
        """Observe the flat inputs of one call."""
        shapes = _shapes(inputs)
        values = self._run(inputs) if shapes == self.shapes else None
        if values is not None:
            self.ranges.add(by_node(self.ranges.observers, values))
        elif self.may_compile and shapes is not None and self._pays():
            self.may_compile = False  # once
            truth = Truth(self.ranges, samples_of(inputs))
            self.ranges.observe(inputs, truth.see)
            self.run, self.shapes = compiled(truth, inputs, self.compile), shapes
        else:
            numbers: list[int] = []
            self.ranges.observe(inputs, lambda node, value: numbers.append(value.numel()))
            macs = samples_of(inputs) * sum(self.ranges.macs.values())
            self.work += macs + OF_A_NUMBER * sum(numbers)
        self.done += 1

    def _pays(self) -> bool:
        """Whether what is left, if it is like what is done, is worth compiling."""
        left = 1 if self.calls is None else (self.calls - self.done) / max(self.done, 1)
        return self.work * left >= WORTH_IT

    def _run(self, inputs: Sequence[Tensor]) -> Sequence[Tensor] | None:
        """The outputs of the compiled graph; None where PyTorch must run the call."""
        if self.run is None or not _finite(inputs):
            return None
        try:
            return self.run(inputs)
        except Exception:  # what PyTorch says of this call is about the user's model
            return None


def _shapes(inputs: Sequence[Any]) -> Shapes | None:
    """Of the inputs; None unless all are tensors on the CPU."""
    if not inputs or not all(isinstance(t, Tensor) and t.device.type == "cpu" for t in inputs):
        return None
    return tuple(t.shape for t in inputs)


def _finite(inputs: Sequence[Tensor]) -> bool:
    """Whether no input has NaN, which the reductions of a runtime may pass over."""
    return all(bool(t.isfinite().all()) for t in inputs)


class Truth:
    """What PyTorch finds in one call: of each observed value, extremes and evenly spaced samples.

    steps: of each value, the steps between its samples; empty if only extremes are observed.
    """

    def __init__(self, ranges: Ranges, samples: int) -> None:
        self.ranges, self.counted = ranges, Histogram.counted(samples)
        self.values: dict[fx.Node, list[Tensor]] = {}
        self.steps: dict[fx.Node, Steps] = {}

    def see(self, node: fx.Node, value: Tensor) -> None:
        """Take in the value of an observed node."""
        if not value.numel():
            return  # nothing to compare: `agrees` fails, and nothing is compiled
        counts = isinstance(self.ranges.observers[node], Histogram)
        self.steps[node] = _steps(node, value, self.counted) if counts else ()
        self.values[node] = [*torch.aminmax(value), *_sampled(value, self.steps[node])]

    def agrees(self, found: Sequence[Tensor], least: float) -> bool:
        """Whether the outputs of the reduced graph are these, samples to `least` dB."""
        rest = iter(found)
        for node in self.ranges.observers:
            expected = self.values[node]
            got = [next(rest) for _ in expected]
            (low, high, *samples), (got_low, got_high, *got_samples) = expected, got
            most = (SPACING if samples else STEP) * (high - low)
            extremes_agree = (got_low - low).abs() <= most and (got_high - high).abs() <= most
            if not extremes_agree or difference(samples, got_samples, least):
                return False
        return True


def compiled(truth: Truth, inputs: Sequence[Tensor], compile: Compile) -> Run | None:
    """A function from a call's inputs to what `by_node` takes; None where it is not exact."""
    ranges = truth.ranges
    try:
        graph = _reduced(ranges.sites.graph.module, list(ranges.observers), truth.steps)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model = compile(graph)
    except Exception:  # whatever it is, PyTorch takes its place
        return None
    for in_bfloat16, least in ((True, IN_BFLOAT16), (False, EXACT)):
        try:
            run: Run = (model.in_bfloat16() if in_bfloat16 else model).run
            if truth.agrees(run(inputs), least):
                return run
        except Exception:  # as above
            continue
    return None


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


def _steps(node: fx.Node, value: Tensor, counted: int) -> Steps:
    """Steps that leave about as many values as are counted, and skip no channel.

    Where it is not known what counts places, a step through all values, which takes a copy in
    PyTorch's order.
    """
    dims = _places(node, value.dim())
    if not dims:
        return (even_step(value.numel(), counted),)
    steps, left = [1] * value.dim(), value.numel() / counted
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
        same = [n for n in node.all_input_nodes if _alike(n.meta.get("val"), value, name)]
        if not same:
            break
        node = same[0]
    return []


def _alike(a: Any, b: Any, name: str) -> bool:
    """Whether an input has the dimensions of the output of this operator."""
    if not isinstance(a, Tensor) or not isinstance(b, Tensor):
        return False
    return str(a.shape) == str(b.shape) or (name == "cat" and a.dim() == b.dim())


def _is_flat(steps: Steps) -> bool:
    return len(steps) == 1 and steps[0] > 1


def _sampled(value: Tensor, steps: Steps) -> list[Tensor]:
    """The middle one of as many values as a step skips: edges, with padding, count no more."""
    if not steps:
        return []
    value = value.reshape(-1) if _is_flat(steps) else value
    return [value[tuple(slice(step // 2, None, step) for step in steps)]]


def _sample_nodes(build: NodeBuilder, value: fx.Node, steps: Steps) -> fx.Node:
    if _is_flat(steps):
        value = build(aten.reshape.default, value, [-1])
    for dim, step in enumerate(steps):
        if step > 1:
            value = build(aten.slice.Tensor, value, dim, step // 2, 2**63 - 1, step)
    return value
