"""Observers: small mergeable sketches of the values a tensor took during calibration.

An observer never keeps the values themselves, so memory does not grow with the data, and two
observers of the same value can be merged, so shards of data can be calibrated apart.
"""

import math

import torch
from torch import Tensor

from .errors import ConfigError, DataError
from .qparams import QParams, QSpec, choose_qparams


class Observer:
    """Records the range of a value: `observe` each tensor, then ask for `qparams`.

    >>> o = MinMaxObserver()
    >>> o.observe(torch.tensor([-1.0, 3.0]))
    >>> o.range()
    (-1.0, 3.0)
    """

    def __init__(self) -> None:
        self.low, self.high = math.inf, -math.inf

    def observe(self, value: Tensor) -> None:
        """Take one tensor into account; raises DataError if it holds NaN or infinity."""
        if value.numel() == 0:
            return
        low, high = (float(v) for v in torch.aminmax(value.detach()))
        if not (math.isfinite(low) and math.isfinite(high)):
            raise DataError(f"values from {low} to {high}: NaN or infinity cannot be quantized")
        self.update(value, low, high)

    def update(self, value: Tensor, low: float, high: float) -> None:
        """Take in a finite, non-empty tensor whose extremes are known."""
        self.low, self.high = min(self.low, low), max(self.high, high)

    def merge(self, other: "Observer") -> None:
        """Take in all that another observer of the same type has seen."""
        self.low, self.high = min(self.low, other.low), max(self.high, other.high)

    def range(self) -> tuple[float, float]:
        """Smallest and largest value seen; raises DataError before the first."""
        if self.low > self.high:
            raise DataError("nothing was observed: run calibration data through the model first")
        return self.low, self.high

    def qparams(self, spec: QSpec) -> QParams:
        """scale and zero_point for the integers of `spec`."""
        return choose_qparams(*self.range(), spec)


class MinMaxObserver(Observer):
    """The full range seen: nothing is clipped."""


class MovingAverageObserver(Observer):
    """Each batch's minimum and maximum, averaged exponentially: forgets a rare outlier.

    A merge weighs both observers by the number of batches they saw.
    """

    def __init__(self, momentum: float = 0.1) -> None:
        super().__init__()
        self.momentum, self.batches = momentum, 0

    def update(self, value: Tensor, low: float, high: float) -> None:
        """Move the range by `momentum` towards this batch's."""
        if self.batches == 0:
            self.low, self.high = low, high
        self.low += self.momentum * (low - self.low)
        self.high += self.momentum * (high - self.high)
        self.batches += 1

    def merge(self, other: Observer) -> None:
        """Average the two ranges, weighted by batches."""
        assert isinstance(other, MovingAverageObserver)
        if other.batches == 0:
            return
        if self.batches == 0:
            self.low, self.high = other.low, other.high
        share = other.batches / (self.batches + other.batches)
        self.low += share * (other.low - self.low)
        self.high += share * (other.high - self.high)
        self.batches += other.batches


class HistogramObserver(Observer):
    """A histogram that widens, and from it the range of least mean squared error.

    Bins are 2**exponent wide and aligned at 0. To widen, neighbours are summed in pairs, so
    counts stay exact: the same data (of normal floats) in any order, or in shards merged later,
    give the same histogram bit for bit.
    """

    half = 2048  # bins on each side of 0
    finest = -100  # exponent of the narrowest bins; its inverse must be a float32

    def __init__(self) -> None:
        super().__init__()
        self.exponent: int | None = None
        self.counts = torch.zeros(2 * self.half, dtype=torch.int64)

    def update(self, value: Tensor, low: float, high: float) -> None:
        """Count the values into bins, widened first where they do not fit."""
        super().update(value, low, high)
        largest = max(-low, high)
        if largest > 0:
            self._widen(max(math.frexp(largest / self.half)[1], self.finest))
        # histc counts in float32: exact up to 2**24 a bin. It is given bin numbers, which a power
        # of two makes exact, so that a value falls into the same bin in whatever company.
        for part in value.detach().reshape(-1).float().split(1 << 24):
            bins = torch.floor(part * math.ldexp(1.0, -(self.exponent or 0))).add_(0.5)
            counts = torch.histc(bins.clamp_(max=self.half), 2 * self.half, -self.half, self.half)
            self.counts += counts.to(device="cpu", dtype=torch.int64)

    def _widen(self, exponent: int) -> None:
        """Make the bins at least 2**exponent wide."""
        if self.exponent is None:
            zeros = self.counts.sum()  # so far only zeros were seen: they stay beside 0
            self.counts.zero_()
            self.counts[self.half] = zeros
            self.exponent = exponent
        while self.exponent < exponent:
            pairs = self.counts.view(-1, 2).sum(1)
            self.counts.zero_()
            self.counts[self.half // 2 : self.half // 2 + self.half] = pairs
            self.exponent += 1

    def merge(self, other: Observer) -> None:
        """Add the other's counts, both in bins of the wider width."""
        assert isinstance(other, HistogramObserver)
        super().merge(other)
        theirs = HistogramObserver()
        theirs.exponent, theirs.counts = other.exponent, other.counts.clone()
        if self.exponent is not None:
            theirs._widen(self.exponent)
        if theirs.exponent is not None:
            self._widen(theirs.exponent)
        self.counts += theirs.counts

    def qparams(self, spec: QSpec) -> QParams:
        """The range, of a grid of shrunken ones, that loses least: rounding plus clipping.

        The error of the integers is summed over the histogram's bins, each taken at its centre.
        """
        low, high = self.range()
        if self.exponent is None:
            return choose_qparams(low, high, spec)
        seen = self.counts.nonzero()[:, 0]
        centres = torch.ldexp((seen - self.half + 0.5).double(), torch.tensor(self.exponent))
        centres = centres.clamp(low, high)
        weights = self.counts[seen].double()
        shrink = torch.linspace(1.0, 0.2, 81, dtype=torch.float64)  # of equal errors the widest
        candidates = choose_qparams(shrink * low, shrink * high, spec)
        scale, zero_point = candidates.scale.double()[:, None], candidates.zero_point[:, None]
        q = (centres / scale + zero_point).round_().clamp_(spec.qmin, spec.qmax)
        error = (((q - zero_point) * scale - centres) ** 2) @ weights
        best = float(shrink[error.argmin()])
        return choose_qparams(best * low, best * high, spec)


OBSERVERS: dict[str, type[Observer]] = {
    "minmax": MinMaxObserver,
    "moving_average": MovingAverageObserver,
    "mse": HistogramObserver,
}


def make_observer(name: str) -> Observer:
    """A new observer by its name in `Config.observer`."""
    if name not in OBSERVERS:
        raise ConfigError(f"unknown observer {name!r}: choose one of {', '.join(OBSERVERS)}")
    return OBSERVERS[name]()
