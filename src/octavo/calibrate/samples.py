"""Samples kept from calibration data, to tune with and to measure on."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from torch import Tensor

from ..capture.float_graph import FloatGraph
from ..capture.signature import Call
from .data import batch_size, some_samples

Batches = Sequence[Sequence[Tensor]]  # flat inputs of a graph


@dataclass(frozen=True)
class Samples:
    """Flat inputs to tune with, and others to measure noise on.

    If there are too few for both, those to measure on serve for both. If calls are not `batched`,
    each is one sample.
    """

    tuning: Batches
    measuring: Batches
    batched: bool = True

    def subset(self, samples: int) -> Samples:
        """Fewer of both, for a trial."""
        tuning, measuring = (
            list(_first(batches, samples, self.batched))
            for batches in (self.tuning, self.measuring)
        )
        return Samples(tuning, measuring, self.batched)


class Buffer:
    """Inputs kept for later, up to a number of samples."""

    def __init__(self, capacity: int, batched: bool) -> None:
        self.capacity, self.batched = capacity, batched
        self.calls: list[Call] = []

    def keep(self, call: Call, start: int) -> int:
        """Keep samples of a call from `start` on up to the capacity; returns where it ended."""
        stop = min(batch_size(call, self.batched), start + self.capacity)
        if stop > start:
            self.calls.append(some_samples(call, start, stop, self.batched))
            self.capacity -= stop - start
        return stop


def keep_samples(
    graph: FloatGraph, calls: Iterable[Call], batched: bool, tuning: int, measuring: int
) -> tuple[Samples, list[Call]]:
    """Read calls until there are `measuring` samples to measure on and `tuning` to tune with.

    Returns the samples, and the calls read, which are still to be observed.
    """
    to_measure, to_tune = Buffer(measuring, batched), Buffer(tuning, batched)
    taken: list[Call] = []
    for call in calls:
        taken.append(call)
        to_tune.keep(call, to_measure.keep(call, 0))
        if to_tune.capacity == 0:
            break
    kept = [[graph.flatten(*call) for call in b.calls] for b in (to_tune, to_measure)]
    return Samples(kept[0] or kept[1], kept[1], batched), taken


def calls_with(calls: Iterable[Call], samples: int) -> Iterator[Call]:
    """Calls until they hold so many samples."""
    for call in calls:
        yield call
        samples -= batch_size(call)
        if samples <= 0:
            return


def _first(batches: Batches, samples: int, batched: bool) -> Iterator[Sequence[Tensor]]:
    buffer = Buffer(samples, batched)
    for inputs in batches:
        buffer.keep((tuple(inputs), {}), 0)
    return (call[0] for call in buffer.calls)
