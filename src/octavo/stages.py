"""The stages after capture, of a model or a part of one: observe, convert and tune, report."""

from __future__ import annotations

from torch import Tensor

from .capture import Call
from .data import batch_size, some_samples
from .guard import convert_guarded
from .model import QuantizedModel
from .quantizer import Quantizer
from .report import make_report
from .tune import choose_for_latency


class Calibration:
    """Shows calls to a quantizer's observers, and keeps some samples to tune and measure on."""

    def __init__(self, quantizer: Quantizer) -> None:
        self.quantizer = quantizer
        self.measuring = Samples(quantizer, quantizer.config.measure_samples)
        self.tuning = Samples(quantizer, quantizer.config.tune_samples)

    def observe(self, call: Call) -> None:
        """Run one call past the observers."""
        self.quantizer.observe(*call[0], **call[1])
        start = self.measuring.keep(call, 0)
        self.tuning.keep(call, start)

    def finish(self) -> QuantizedModel:
        """Choose for speed, convert, tune, guard against collapse, and report."""
        measuring = self.measuring.kept
        if self.quantizer.config.optimize == "latency":
            choose_for_latency(self.quantizer, measuring[0])
        done = convert_guarded(self.quantizer, self.tuning.kept or measuring, measuring)
        report = make_report(self.quantizer, done)
        assert self.quantizer.signature is not None
        return QuantizedModel(done.graph, self.quantizer.signature, self.quantizer.config, report)


class Samples:
    """Inputs kept for later, up to a number of samples, as the flat inputs of a graph."""

    def __init__(self, quantizer: Quantizer, room: int) -> None:
        self.quantizer, self.room = quantizer, room
        self.kept: list[list[Tensor]] = []

    def keep(self, call: Call, start: int) -> int:
        """Keep samples of a call from `start` on while there is room; returns where it ended."""
        stop = min(batch_size(call), start + self.room)
        if stop > start:
            args, kwargs = some_samples(call, start, stop)
            assert self.quantizer.signature is not None
            self.kept.append(self.quantizer.signature.flatten(args, kwargs))
            self.room -= stop - start
        return stop
