"""Samples kept from calibration data, to tune with and to measure on."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.utils._pytree as pytree
from torch import Tensor, fx

from ..capture.float_graph import FloatGraph
from ..capture.signature import Call
from ..graph.interpreter import Interpreter
from .data import batch_size

COPIES = 4  # of a value while layers are tuned: float, quantized, corrected, and gathered

Inputs = Sequence[Tensor]  # flat inputs of a graph
Batched = Sequence[int | None]  # of each input: the dimension that counts samples; () for none


@dataclass(frozen=True)
class Samples:
    """Flat inputs to tune with, and others to measure noise on.

    If there are too few for both, those to measure on serve for both. Where no input is `batched`,
    each call is one sample.
    """

    tuning: Sequence[Inputs]
    measuring: Sequence[Inputs]
    batched: Batched = ()

    def subset(self, samples: int) -> Samples:
        """Fewer of both, for a trial."""
        return self.to_tune(samples).to_measure(samples)

    def pieces(self, samples: int, most: int) -> Iterator[Inputs]:
        """The samples to tune with, so many at a time, up to `most` of them."""
        yield from _pieces(_first(self.tuning, most, self.batched), samples, self.batched)

    def to_tune(self, most: int | None) -> Samples:
        """With at most so many samples to tune with."""
        if most is None:
            return self
        return replace(self, tuning=_first(self.tuning, most, self.batched))

    def to_measure(self, most: int) -> Samples:
        """With at most so many samples to measure on."""
        return replace(self, measuring=_first(self.measuring, most, self.batched))

    def groups(self, number: int) -> Iterator[Inputs]:
        """The samples to measure on, in so many groups that follow each other, or more."""
        total = sum(count(inputs, self.batched) for inputs in self.measuring)
        yield from _pieces(self.measuring, max(1, total // number), self.batched)


class Buffer:
    """Inputs kept for later, up to a number of samples."""

    def __init__(self, capacity: int, batched: Batched) -> None:
        self.capacity, self.batched = capacity, batched
        self.kept: list[Inputs] = []

    def keep(self, inputs: Inputs, start: int) -> int:
        """Keep samples of a call from `start` on up to the capacity; returns where it ended."""
        stop = min(count(inputs, self.batched), start + self.capacity)
        if stop > start:
            self.kept.append(_cut(inputs, start, stop, self.batched))
            self.capacity -= stop - start
        return stop


def count(inputs: Inputs, batched: Batched) -> int:
    """How many samples a call has: 1, if its tensors cannot be cut into samples."""
    pairs = zip(inputs, batched, strict=bool(batched))
    return next((t.shape[d] for t, d in pairs if d is not None), 1)


def _cut(inputs: Inputs, start: int, stop: int, batched: Batched) -> Inputs:
    return [
        (t if d is None else t.narrow(d, start, stop - start)).clone()
        for t, d in zip(inputs, batched or [None] * len(inputs), strict=True)
    ]


def keep_samples(
    graph: FloatGraph,
    calls: Iterable[Call],
    tuning: int,
    measuring: int,
    memory: float,
    divided: bool = False,
) -> tuple[Samples, list[Call]]:
    """Read calls until there are `measuring` samples to measure on and `tuning` to tune with.

    Returns the samples, and the calls read, which are still to be observed. There are fewer samples
    to tune with, but at least one, if their values would not fit in `memory`, in bytes. Where there
    are too few for both, and they are to be `divided`, each gets its share of them.
    """
    if divided:
        first = [*calls_with(calls, tuning + measuring)]
        calls = itertools.chain(first, calls)
        total = sum(count(graph.flatten(*call), graph.batched) for call in first)
        measuring = max(1, min(measuring, total * measuring // (tuning + measuring)))
    batched = graph.batched
    to_measure, to_tune = Buffer(measuring, batched), Buffer(tuning, batched)
    taken: list[Call] = []
    for call in calls:
        inputs = graph.flatten(*call)
        if not taken:
            sample = COPIES * peak_bytes(graph, _cut(inputs, 0, 1, batched))
            to_tune.capacity = max(1, min(tuning, int(memory // max(sample, 1))))
        taken.append(call)
        to_tune.keep(inputs, to_measure.keep(inputs, 0))
        if to_tune.capacity == 0:
            break
    return Samples(to_tune.kept or to_measure.kept, to_measure.kept, batched), taken


def peak_bytes(graph: FloatGraph, inputs: Inputs) -> int:
    """The most bytes that values of one run take at a time, without the model's own tensors."""
    largest = 0

    def see(node: fx.Node, value: Any, env: Mapping[fx.Node, Any]) -> Any:
        nonlocal largest
        held = [v for n, v in (*env.items(), (node, value)) if n.op != "get_attr"]
        tensors = {id(t): t for t in pytree.tree_leaves(held) if isinstance(t, Tensor)}
        largest = max(largest, sum(t.numel() * t.element_size() for t in tensors.values()))
        return value

    with torch.no_grad():
        Interpreter(graph.module, see).run(*inputs)
    return largest


def calls_with(calls: Iterable[Call], samples: int) -> Iterator[Call]:
    """Calls until they hold so many samples."""
    for call in calls:
        yield call
        samples -= batch_size(call)
        if samples <= 0:
            return


def _pieces(batches: Sequence[Inputs], samples: int, batched: Batched) -> Iterator[Inputs]:
    for inputs in batches:
        total = count(inputs, batched)
        for start in range(0, total, samples):
            yield _cut(inputs, start, min(start + samples, total), batched)


def _first(batches: Sequence[Inputs], samples: int, batched: Batched) -> Sequence[Inputs]:
    buffer = Buffer(samples, batched)
    for inputs in batches:
        buffer.keep(inputs, 0)
    return buffer.kept
