"""Observe values where the float model runs fastest: compiled, with reductions in the graph.

Most of calibration is running the float model. Compiled by OpenVINO it runs up to twice as fast as
in PyTorch, and several times where other processes are busy. The graph then returns, of each
observed value, its extremes and evenly spaced samples for the histogram: the values themselves
would take longer to copy than to compute.
"""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, fx

from ..graph.compare import difference
from .observers import Histogram, Observer
from .places import Steps, sample_nodes, sampled, steps_of
from .ranges import Ranges, samples_of

EXTREMES = (torch.ops.aten.amin.default, torch.ops.aten.amax.default)

# What compiling must be worth: some seconds of PyTorch's time, counted in multiply-adds, of which
# observing a number takes as long as some dozens.
WORTH_IT, OF_A_NUMBER = 1e11, 50
WORTH_HALVING = 5e11  # by trying bfloat16 too, which takes another second
# Samples must agree with PyTorch's to so many dB: in float32, and where a CPU computes in bfloat16
# to less, which is still more than int8 leaves.
EXACT, IN_BFLOAT16 = 50.0, 40.0
FORMS = ((True, IN_BFLOAT16), (False, EXACT))
# Extremes must agree to so much of the range: one step of the integers, or, where the histogram
# says what to clip, twice the spacing of the ranges that are tried.
STEP, SPACING = 1 / 255, 0.02

Compile = Callable[[fx.GraphModule], Any]
Run = Callable[[Sequence[Tensor]], Sequence[Tensor]]
Shapes = tuple[torch.Size, ...]
Forms = Sequence[tuple[bool, float]]  # whether in bfloat16, and to how many dB it must agree


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
        elif self.may_compile and shapes is not None and self._left() >= WORTH_IT:
            self.may_compile = False  # once
            truth = Truth(self.ranges, samples_of(inputs))
            self.ranges.observe(inputs, truth.see)
            forms = FORMS if self._left() >= WORTH_HALVING else FORMS[1:]
            self.run, self.shapes = compiled(truth, inputs, self.compile, forms), shapes
        else:
            numbers: list[int] = []
            self.ranges.observe(inputs, lambda node, value: numbers.append(value.numel()))
            macs = samples_of(inputs) * sum(self.ranges.macs.values())
            self.work += macs + OF_A_NUMBER * sum(numbers)
        self.done += 1

    def _left(self) -> float:
        """The work that is left, if it is like what is done."""
        calls = self.done if self.calls is None else self.calls - self.done
        return self.work * calls / max(self.done, 1)

    def _run(self, inputs: Sequence[Tensor]) -> Sequence[Tensor] | None:
        """The outputs of the compiled graph; None where PyTorch must run the call."""
        # a runtime's reductions may pass over NaN
        if self.run is not None and all(bool(t.isfinite().all()) for t in inputs):
            with contextlib.suppress(Exception):  # PyTorch's errors are about the user's model
                return self.run(inputs)
        return None


def _shapes(inputs: Sequence[Any]) -> Shapes | None:
    """Of the inputs; None unless all are tensors on the CPU."""
    if not inputs or not all(isinstance(t, Tensor) and t.device.type == "cpu" for t in inputs):
        return None
    return tuple(t.shape for t in inputs)


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
        self.steps[node] = steps_of(node, value, self.counted) if counts else ()
        self.values[node] = [*torch.aminmax(value), *sampled(value, self.steps[node])]

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


def compiled(truth: Truth, inputs: Sequence[Any], compile: Compile, forms: Forms) -> Run | None:
    """A function from a call's inputs to what `by_node` takes; None where it is not exact."""
    ranges = truth.ranges
    with contextlib.suppress(Exception):  # whatever it is, PyTorch takes its place
        graph = _reduced(ranges.sites.graph.module, list(ranges.observers), truth.steps)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model = compile(graph)
        for in_bfloat16, least in forms:
            with contextlib.suppress(Exception):
                run: Run = (model.in_bfloat16() if in_bfloat16 else model).run
                if truth.agrees(run(inputs), least):
                    return run
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
        dims = list(range(value.meta["val"].dim()))
        outputs += [graph.call_function(op, (value, dims)) for op in EXTREMES]
        if steps[node]:
            outputs.append(sample_nodes(graph, value, steps[node]))
    graph.output(tuple(outputs))
    graph.eliminate_dead_code()
    return fx.GraphModule(module, graph)
