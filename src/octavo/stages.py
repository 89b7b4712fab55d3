"""The stages after capture, for a whole model or for a part of one: observe, convert, report."""

from __future__ import annotations

from torch import Tensor

from .capture import Call
from .data import batch_size, first_samples
from .guard import convert_guarded
from .model import QuantizedModel
from .quantizer import Quantizer
from .report import make_report


class Calibration:
    """Shows calls to a quantizer's observers and keeps their first samples, to measure on."""

    def __init__(self, quantizer: Quantizer) -> None:
        self.quantizer = quantizer
        self.samples: list[list[Tensor]] = []
        self.room = quantizer.config.measure_samples

    def observe(self, call: Call) -> None:
        """Run one call past the observers."""
        self.quantizer.observe(*call[0], **call[1])
        if self.room > 0:
            some = first_samples(call, self.room)
            self.room -= batch_size(some)
            assert self.quantizer.signature is not None
            self.samples.append(self.quantizer.signature.flatten(*some))

    def finish(self) -> QuantizedModel:
        """Convert, guard against collapse, and report."""
        quantized, noises, output = convert_guarded(self.quantizer, self.samples)
        report = make_report(self.quantizer, self.quantizer.model, quantized, noises, output)
        assert self.quantizer.signature is not None
        return QuantizedModel(quantized, self.quantizer.signature, self.quantizer.config, report)
