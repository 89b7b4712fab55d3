"""The stages after capture, of a model or a part of one: observe, convert and tune, report."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterable

from torch import Tensor

from .calibrate.data import batch_size, some_samples
from .capture.signature import Call
from .metrics import Step
from .model import QuantizedModel
from .quantizer import Quantizer
from .report import make_report
from .search.fallback import Evaluate, convert_guarded
from .search.latency import choose_for_latency
from .tune.steps import Evidence, equalize_if_better


class Calibration:
    """Shows calls to a quantizer's observers, and keeps some samples to tune and measure on.

    The first calls wait until there are samples enough to equalize the graph with, which changes
    the ranges that are to be observed.
    """

    def __init__(self, quantizer: Quantizer) -> None:
        self.quantizer = quantizer
        self.measuring = Samples(quantizer, quantizer.config.measure_samples)
        self.tuning = Samples(quantizer, quantizer.config.tune_samples)
        self.waiting: list[Call] | None = [] if quantizer.config.equalize else None
        self.steps: tuple[Step, ...] = ()

    def observe(self, call: Call) -> None:
        """Run one call past the observers."""
        self._keep(call)
        if self.waiting is None:
            self.quantizer.observe(*call[0], **call[1])
            return
        self.waiting.append(call)
        if self.tuning.room == 0:
            self._equalize()

    def prepare(self, lead: Iterable[Call]) -> None:
        """Keep samples of the first calls and equalize, where others observe them."""
        for call in lead:
            self._keep(call)
        if self.waiting is not None:
            self._equalize()

    def _keep(self, call: Call) -> None:
        start = self.measuring.keep(call, 0)
        self.tuning.keep(call, start)

    def _equalize(self) -> None:
        """Equalize the graph if that helps, and observe what waited for it."""
        waiting, self.waiting = self.waiting, None
        self.quantizer, self.steps = equalize_if_better(self.quantizer, self.evidence)
        for args, kwargs in waiting or ():
            self.quantizer.observe(*args, **kwargs)

    @functools.cached_property
    def evidence(self) -> Evidence:
        """What was kept, when enough was seen."""
        tuning, measuring, quantizer = self.tuning.kept, self.measuring.kept, self.quantizer
        return Evidence(quantizer.module, tuning, measuring, quantizer.batched)

    def finish(self, evaluate: Evaluate | None = None, max_drop: float = 0.0) -> QuantizedModel:
        """Choose for speed, convert, tune, reach the goals, and report."""
        if self.waiting is not None:
            self._equalize()
        quantizer, evidence = self.quantizer, self.evidence
        if quantizer.config.optimize == "latency":
            choose_for_latency(quantizer, evidence.part(1).measuring[0])
        done = convert_guarded(quantizer, evidence, evaluate, max_drop)
        done = dataclasses.replace(done, steps=self.steps + done.steps)
        report = make_report(quantizer, done)
        assert quantizer.signature is not None
        return QuantizedModel(done.graph, quantizer.signature, quantizer.config, report)


class Samples:
    """Inputs kept for later, up to a number of samples, as the flat inputs of a graph."""

    def __init__(self, quantizer: Quantizer, room: int) -> None:
        self.quantizer, self.room = quantizer, room
        self.kept: list[list[Tensor]] = []

    def keep(self, call: Call, start: int) -> int:
        """Keep samples of a call from `start` on while there is room; returns where it ended."""
        batched = self.quantizer.batched
        stop = min(batch_size(call, batched), start + self.room)
        if stop > start:
            args, kwargs = some_samples(call, start, stop, batched)
            self.kept.append(self.quantizer.flatten(args, kwargs))
            self.room -= stop - start
        return stop
