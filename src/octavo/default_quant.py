"""DefaultQuant: one value's observer, and the integers that its range gives."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from torch import Tensor, fx

from .calibrate.observers import make_observer
from .errors import DataError
from .graph.names import describe
from .graph.qparams import ACTIVATION, SYMMETRIC_ACTIVATION, QParams, QSpec, choose_qparams

if TYPE_CHECKING:
    from .quantizer import Quantizer

# Up to this much wider steps are given for a zero_point of 0: 0.8 dB at most for 4 to 10 % of a
# linear layer's time.
NEARLY_SYMMETRIC = 1.1


class DefaultQuant:
    """Observes one value and quantizes it: what `quant_ctor` makes for each value read as int8."""

    def __init__(self, quantizer: Quantizer, node: fx.Node) -> None:
        self.quantizer, self.name = quantizer, node.name
        # what is rounded for an engine's sake alone is not clipped
        whole = node.name in quantizer.roundable
        self.observer = make_observer("minmax" if whole else quantizer.config.observer)
        self.all_tensors = True
        self.found: dict[QSpec, tuple[float, float]] = {}

    def observe(self, node: fx.Node, env: Mapping[str, Any]) -> None:
        """Look at the value `node` took."""
        value = env[node.name]
        if not isinstance(value, Tensor):
            self.all_tensors = False
            return
        self.found = {}
        try:
            self.observer.observe(value)
        except DataError as e:
            raise DataError(
                f"the output of {describe(node)} has {e}: check the calibration data and weights"
            ) from e

    def merge(self, other: DefaultQuant) -> None:
        """Take in what another value showed: the two will share scale and zero_point."""
        self.found = {}
        self.observer.merge(other.observer)
        self.all_tensors &= other.all_tensors

    def clipped(self, spec: QSpec) -> tuple[float, float]:
        """The observer's range for `spec`, searched once for what was observed."""
        if spec not in self.found:
            self.found[spec] = self.observer.clipped(spec)
        return self.found[spec]

    def qparams(self) -> QParams:
        """scale and zero_point from what was observed; a zero_point near the middle becomes 0."""
        spec = self.quantizer.spec_of(self.name)
        if spec.symmetric and self.observer.range()[0] >= 0:
            spec = ACTIVATION  # whose zero_point is 0 as well, with all 256 integers in use
        low, high = self.clipped(spec)
        qparams = choose_qparams(low, min(high, self.quantizer.ceiling_of(self.name)), spec)
        nearly = qparams.asymmetry < NEARLY_SYMMETRIC
        if self.name in self.quantizer.may_be_signed and not qparams.spec.symmetric and nearly:
            return choose_qparams(*self.clipped(SYMMETRIC_ACTIVATION), SYMMETRIC_ACTIVATION)
        return qparams

    def quantize(self, input: fx.Node) -> fx.Node:
        """Emit the quantization of `input`."""
        return self.quantizer.conversion.emit_qparams(input, self.name, self.qparams())
