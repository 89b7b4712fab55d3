"""Samples kept from calibration data, to tune with and to measure on."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Collection, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.utils._pytree as pytree
from torch import Tensor, fx

from ..capture.float_graph import FloatGraph
from ..capture.signature import Call
from ..errors import ConfigError, DataError
from ..graph.interpreter import Interpreter
from .data import batch_size

MOST_READ = 4  # times the samples that are wanted, in search of others to measure on
COPIES = 4  # of a value while layers are tuned: float, quantized, corrected, and gathered

Inputs = Sequence[Tensor]  # flat inputs of a graph
Batched = Sequence[int | None]  # of each input: the dimension that counts samples; () for none


@dataclass(frozen=True)
class Samples:
    """Flat inputs to tune with, and others to measure noise on.

    If there are too few for both, those to measure on serve for both. Where no input is `batched`,
    each call is one sample.

    labels: of the samples to measure on: those of one label belong together; empty if none do.
    """

    tuning: Sequence[Inputs]
    measuring: Sequence[Inputs]
    batched: Batched = ()
    labels: Sequence[Hashable] = ()

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
        few = _first(self.measuring, most, self.batched)
        return replace(self, measuring=few, labels=self.labels[:most])

    def groups(self, number: int) -> Iterator[Sequence[Inputs]]:
        """The samples to measure on, in so many groups, or more; none divides those of a label.

        Where there are no labels, the samples of a group follow each other.
        """
        total = sum(count(inputs, self.batched) for inputs in self.measuring)
        labels = self.labels or range(total)
        group: dict[Hashable, int] = {}
        for label, samples in Counter(labels).items():
            group[label] = samples
            if sum(group.values()) >= total // number:
                yield self._labelled(labels, group)
                group = {}
        if group:
            yield self._labelled(labels, group)

    def _labelled(
        self, labels: Sequence[Hashable], wanted: Collection[Hashable]
    ) -> Sequence[Inputs]:
        rest, found = iter(labels), []
        for inputs in self.measuring:
            own = [*itertools.islice(rest, count(inputs, self.batched))]
            if places := [i for i, label in enumerate(own) if label in wanted]:
                found.append(_cut(inputs, places, self.batched))
        return found


class Buffer:
    """Inputs kept for later, up to a number of samples."""

    def __init__(self, capacity: int, batched: Batched) -> None:
        self.capacity, self.batched = capacity, batched
        self.kept: list[Inputs] = []
        self.samples = 0

    @property
    def room(self) -> int:
        """For how many more samples there is room."""
        return self.capacity - self.samples

    def keep(self, inputs: Inputs, places: Sequence[int]) -> None:
        """Keep samples of a call, by their places in it, up to the capacity."""
        if few := places[: self.room]:
            self.kept.append(_cut(inputs, few, self.batched))
            self.samples += len(few)


def _in_order(samples: int, buffers: Sequence[Buffer]) -> list[range]:
    """The places of the next samples that go to each of two buffers: the first is filled first."""
    first = min(samples, buffers[0].room)
    return [range(first), range(first, samples)]


class Labels:
    """Divides samples between those to measure on and those to tune with, by their labels."""

    def __init__(self, labels: Iterable[Hashable]) -> None:
        self.rest = iter(labels)
        self.sides: dict[Hashable, int] = {}
        self.measured: list[Hashable] = []

    def divide(self, samples: int, buffers: Sequence[Buffer]) -> list[list[int]]:
        """The places of the next samples that go to each buffer, those to measure on first.

        A new label goes to the emptier one. Raises DataError if labels are missing, ConfigError if
        they are no labels.
        """
        own = [*itertools.islice(self.rest, samples)]
        if len(own) < samples:
            raise DataError(
                "groups has fewer labels than the calibration data has samples: give one for each "
                "sample, not for each batch, in the order of the data"
            )
        places: list[list[int]] = [[] for _ in buffers]
        for i, label in enumerate(own):
            if not isinstance(label, Hashable):
                raise ConfigError(f"groups has {label!r} for a label: a number or string is needed")
            if label not in self.sides:
                full = [(b.samples + len(p)) / b.capacity
                        for b, p in zip(buffers, places, strict=True)]  # fmt: skip
                self.sides[label] = full.index(min(full))
            places[self.sides[label]].append(i)
        self.measured += [own[i] for i in places[0][: buffers[0].room]]
        return places


def count(inputs: Inputs, batched: Batched) -> int:
    """How many samples a call has: 1, if its tensors cannot be cut into samples."""
    pairs = zip(inputs, batched, strict=bool(batched))
    return next((t.shape[d] for t, d in pairs if d is not None), 1)


def _cut(inputs: Inputs, places: Sequence[int], batched: Batched) -> Inputs:
    return [
        t.clone() if d is None else t.index_select(d, torch.tensor(places, device=t.device))
        for t, d in zip(inputs, batched or [None] * len(inputs), strict=True)
    ]


def labels_of(groups: Iterable[Hashable]) -> Iterator[Hashable]:
    """A label for each sample, from what the user gives; raises ConfigError if that has none."""
    to_list = getattr(groups, "tolist", None)  # of a tensor, an array or a column of a table
    labels = to_list() if to_list else groups
    if isinstance(labels, str | bytes | Mapping) or not isinstance(labels, Iterable):
        raise ConfigError(
            f"groups is a {type(groups).__name__}: a label for each sample of the data is needed, "
            "such as [0, 0, 0, 1, 1]"
        )
    return iter(labels)


def keep_samples(
    graph: FloatGraph,
    calls: Iterable[Call],
    tuning: int,
    measuring: int,
    memory: float,
    divided: bool = False,
    labels: Iterable[Hashable] | None = None,
) -> tuple[Samples, list[Call]]:
    """Read calls until there are `measuring` samples to measure on and `tuning` to tune with.

    Returns the samples, and the calls read, which are still to be observed. There are fewer samples
    to tune with, but at least one, if their values would not fit in `memory`, in bytes. Where there
    are too few for both, and they are to be `divided`, each gets its share of them.

    labels: one for each sample: those of one label are either to measure on or to tune with.
    """
    if divided:
        first = [*calls_with(calls, tuning + measuring)]
        calls = itertools.chain(first, calls)
        total = sum(count(graph.flatten(*call), graph.batched) for call in first)
        measuring = max(1, min(measuring, total * measuring // (tuning + measuring)))
    batched = graph.batched
    to_measure, to_tune = both = Buffer(measuring, batched), Buffer(tuning, batched)
    taken: list[Call] = []
    read, known = 0, None if labels is None else Labels(labels)
    divide: Callable[..., Sequence[Sequence[int]]] = known.divide if known else _in_order
    for call in calls:
        inputs = graph.flatten(*call)
        if not taken:
            sample = COPIES * peak_bytes(graph, _cut(inputs, [0], batched))
            to_tune.capacity = max(1, min(tuning, int(memory // max(sample, 1))))
        taken.append(call)
        read += (samples := count(inputs, batched))
        for buffer, places in zip(both, divide(samples, both), strict=True):
            buffer.keep(inputs, places)
        if read > MOST_READ * (tuning + measuring) or not (to_measure.room or to_tune.room):
            break
    kept = to_measure.kept
    measured = known.measured if known else ()
    return Samples(to_tune.kept or kept, kept, batched, measured), taken


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
            yield _cut(inputs, range(start, min(start + samples, total)), batched)


def _first(batches: Sequence[Inputs], samples: int, batched: Batched) -> Sequence[Inputs]:
    buffer = Buffer(samples, batched)
    for inputs in batches:
        buffer.keep(inputs, range(count(inputs, batched)))
    return buffer.kept
