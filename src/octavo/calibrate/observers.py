"""Observers: small mergeable sketches of the values a tensor took during calibration.

An observer never keeps the values themselves, so memory does not grow with the data, and two
observers of the same value can be merged, so shards of data can be calibrated apart.
"""

import copy
import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import ConfigError, DataError
from ..graph.qparams import QParams, QSpec, choose_qparams
from ..site_config import OBSERVER_NAMES


class Observer:
    """Records the range of a value: `observe` each tensor, then ask for `qparams`.

    >>> o = MinMaxObserver()
    >>> o.observe(torch.tensor([-1.0, 3.0]))
    >>> o.range()
    (-1.0, 3.0)
    """

    def __init__(self) -> None:
        self.low, self.high = math.inf, -math.inf

    def observe(self, value: Tensor, samples: int = 1) -> None:
        """Record one tensor, of so many samples; DataError if it holds NaN or infinity."""
        if value.numel() == 0:
            return
        value = value.detach()
        low, high = (float(v) for v in torch.aminmax(value))
        self.add(self.sampled(value, samples), low, high)

    def sampled(self, value: Tensor, samples: int) -> Tensor:
        """The values to record, beside the extremes."""
        return value

    def add(self, value: Tensor, low: float, high: float) -> None:
        """The same for a tensor whose extremes are known, or evenly spaced values of one."""
        if not (math.isfinite(low) and math.isfinite(high)):
            raise DataError(f"values from {low} to {high}: NaN or infinity cannot be quantized")
        self.update(value, low, high)

    def update(self, value: Tensor, low: float, high: float) -> None:
        """Record a finite, non-empty tensor whose extremes are known."""
        self.low, self.high = min(self.low, low), max(self.high, high)

    def merge(self, other: "Observer") -> None:
        """Add all that another observer of the same type has seen."""
        self.low, self.high = min(self.low, other.low), max(self.high, other.high)

    def range(self) -> tuple[float, float]:
        """Smallest and largest value seen; raises DataError before the first."""
        if self.low > self.high:
            raise DataError("nothing was observed: run calibration data through the model first")
        return self.low, self.high

    def extremes(self) -> tuple[float, float]:
        """Smallest and largest value seen, even where `range` is narrower."""
        return self.range()

    def clipped(self, spec: QSpec) -> tuple[float, float]:
        """The part of the range to spread over the integers of `spec`: by default all of it."""
        return self.range()

    def qparams(self, spec: QSpec) -> QParams:
        """scale and zero_point for the integers of `spec`."""
        return choose_qparams(*self.clipped(spec), spec)


class MinMaxObserver(Observer):
    """The full range seen: nothing is clipped."""


class MovingAverageObserver(Observer):
    """Each batch's minimum and maximum, averaged exponentially: forgets a rare outlier.

    A merge weighs both observers by the number of batches they saw.
    """

    def __init__(self, momentum: float = 0.1) -> None:
        super().__init__()
        self.momentum, self.batches = momentum, 0
        self.whole = MinMaxObserver()

    def update(self, value: Tensor, low: float, high: float) -> None:
        """Move the range by `momentum` towards this batch's."""
        self.whole.update(value, low, high)
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
        self.whole.merge(other.whole)
        if self.batches == 0:
            self.low, self.high = other.low, other.high
        share = other.batches / (self.batches + other.batches)
        self.low += share * (other.low - self.low)
        self.high += share * (other.high - self.high)
        self.batches += other.batches

    def extremes(self) -> tuple[float, float]:
        """Smallest and largest value seen."""
        return self.whole.range()


class Histogram(Observer):
    """A histogram that widens as needed; subclasses choose how much of its range to keep.

    Bins are 2**exponent wide and aligned at 0. To widen, neighbours are summed in pairs, so
    counts stay exact: the same data (of normal floats) in any order, or in shards merged later,
    yield the same histogram bit for bit.
    """

    # About so many evenly spaced values are counted of each sample, and of a tensor at least.
    of_sample, of_tensor = 1 << 13, 1 << 16
    half = 2048  # bins on each side of 0
    finest = -100  # exponent of the narrowest bins; its inverse must be a float32

    def __init__(self) -> None:
        super().__init__()
        self.exponent = self.finest
        self.counts = torch.zeros(2 * self.half, dtype=torch.int64)

    @classmethod
    def counted(cls, samples: int) -> int:
        """How many values are counted of a tensor of so many samples."""
        return max(cls.of_tensor, samples * cls.of_sample)

    def sampled(self, value: Tensor, samples: int) -> Tensor:
        """Evenly spaced values."""
        flat = value.reshape(-1)
        return flat[:: even_step(len(flat), self.counted(samples))]

    def update(self, value: Tensor, low: float, high: float) -> None:
        """Count the values into bins, widened first where they do not fit."""
        super().update(value, low, high)
        largest = max(-low, high)
        if largest > 0:
            self._widen(math.frexp(largest / self.half)[1])
        # histc counts in float32: exact up to 2**24 a bin. It is given bin numbers, which a power
        # of two makes exact, so that a value's bin does not depend on other values; wide
        # bins need float64, in which small values do not underflow and lose their sign.
        dtype = torch.float32 if self.exponent <= 0 else torch.float64
        for part in value.reshape(-1).to(dtype).split(1 << 24):
            bins = (part * math.ldexp(1.0, -self.exponent)).floor_()
            counts = torch.histc(bins, 2 * self.half, -self.half, self.half)
            self.counts += counts.to(device="cpu", dtype=torch.int64)

    def _widen(self, exponent: int) -> None:
        """Make the bins at least 2**exponent wide."""
        # once all is in the two bins beside 0, it stays there
        for _ in range(min(exponent - self.exponent, self.half.bit_length() - 1)):
            pairs = self.counts.view(-1, 2).sum(1)
            self.counts = F.pad(pairs, (self.half // 2, self.half // 2))
        self.exponent = max(self.exponent, exponent)

    def merge(self, other: Observer) -> None:
        """Add the other's counts, both in bins of the wider width."""
        assert isinstance(other, Histogram)
        super().merge(other)
        theirs = copy.copy(other)
        theirs._widen(self.exponent)
        self._widen(theirs.exponent)
        self.counts = self.counts + theirs.counts

    @property
    def width(self) -> float:
        """Width of a bin."""
        return math.ldexp(1.0, self.exponent)

    def cells(self, qparams: QParams) -> Tensor:
        """Which bins become which integer, for the qparams of several candidate ranges.

        Shape (candidates, integers + 1): integer i has the bins from cells[:, i] up to
        cells[:, i + 1]. What is clipped belongs to the outermost integers.
        """
        spec = qparams.spec
        steps = torch.arange(spec.qmin, spec.qmax + 2) - 0.5 - qparams.zero_point[:, None]
        edges = torch.round(steps * (qparams.scale.double() / self.width)[:, None]) + self.half
        edges[:, 0], edges[:, -1] = 0, 2 * self.half
        return edges.clamp(0, 2 * self.half).long()


def even_step(size: int, counted: int) -> int:
    """The step that leaves about `counted` of `size` values, of all columns and channels alike.

    So it divides no side of the tensor: it has no divisor in common with their product.
    """
    step = max(size // counted, 1)
    while math.gcd(step, size) > 1:
        step -= 1
    return step


def _sums(values: Tensor, cells: Tensor) -> Tensor:
    """Sums of `values`, one a bin, over the bins of each cell."""
    return F.pad(values.cumsum(0), (1, 0))[cells].diff(dim=1)


class PercentileObserver(Histogram):
    """The range of `kept` of all values, each tail losing half of the rest, to within one bin.

    As integers always reach 0, data on one side of it loses values of the other tail only.
    """

    def __init__(self, kept: float = 0.9999) -> None:
        super().__init__()
        self.kept = kept

    def clipped(self, spec: QSpec) -> tuple[float, float]:
        """From the lower edge of the first bin that is kept to the upper edge of the last."""
        low, high = self.range()
        up_to = self.counts.cumsum(0)
        final = int(up_to[-1]) - 1
        tail = int(final * (1 - self.kept) / 2)
        ranks = torch.tensor([tail, final - tail])
        first, last = (torch.searchsorted(up_to, ranks, right=True) - self.half).tolist()
        return max(low, first * self.width), min(high, (last + 1) * self.width)


# Candidate ranges are shares of the whole; of equally good ones the first is taken, the widest.
SHARES = torch.linspace(1.0, 0.01, 100, dtype=torch.float64)


class MSEObserver(Histogram):
    """The range of least mean squared error, of rounding inside it and of clipping beyond.

    Found by coordinate search: both ends shrink together, then each in turn. After GELU or
    hardswish, which put much data into a short negative side, only the positive end should.
    """

    def clipped(self, spec: QSpec) -> tuple[float, float]:
        """The best range found; a third round would change next to nothing."""
        low, high = self.range()
        lows, highs = SHARES * low, SHARES * high
        low, high = self._best(lows, highs, spec)
        for _ in range(2):
            low, high = self._best(torch.full_like(lows, low), highs, spec)
            low, high = self._best(lows, torch.full_like(highs, high), spec)
        return low, high

    def _best(self, lows: Tensor, highs: Tensor, spec: QSpec) -> tuple[float, float]:
        best = self.errors(lows, highs, spec).argmin()
        return float(lows[best]), float(highs[best])

    def errors(self, lows: Tensor, highs: Tensor, spec: QSpec) -> Tensor:
        """Summed squared error of each candidate range, every bin taken at its centre."""
        qparams = choose_qparams(lows, highs, spec)
        counts = self.counts.double()
        centres = torch.arange(-self.half, self.half, dtype=torch.float64).add_(0.5) * self.width
        centres.clamp_(self.low, self.high)
        cells = self.cells(qparams)
        number, total = _sums(counts, cells), _sums(counts * centres, cells)
        integers = torch.arange(spec.qmin, spec.qmax + 1) - qparams.zero_point[:, None]
        reals = integers * qparams.scale.double()[:, None]
        squares = (counts * centres**2).sum()
        return squares + (reals * (reals * number - 2 * total)).sum(1)  # of (real - centre)**2


class EntropyObserver(Histogram):
    """Clips at the magnitude of least KL divergence from the original distribution.

    After S. Migacz, "8-bit Inference with TensorRT", GTC 2017. P is the histogram, its clipped
    values added to the outermost integers' bins in proportion; Q spreads the values inside the
    range that become one integer evenly over its bins that are not empty. Unlike there:
    - the integers are those of each range's own qparams, so data may be one-sided or skewed;
    - Q is not scaled up for what it lacks, and has one value where only clipped ones become an
      integer: clipping a far outlier costs little and clipping nearly all much.
    Where much of the data is a few values (a background) it clips far more than squared error
    would.
    """

    def clipped(self, spec: QSpec) -> tuple[float, float]:
        """What is within the best of a hundred thresholds."""
        low, high = self.range()
        thresholds = SHARES * max(-low, high)
        lows, highs = (-thresholds).clamp(min=low), thresholds.clamp(max=high)
        best = self.divergences(lows, highs, spec).argmin()
        return float(lows[best]), float(highs[best])

    def divergences(self, lows: Tensor, highs: Tensor, spec: QSpec) -> Tensor:
        """KL(P || Q) of each candidate range, in nats.

        Computed as the divergence between integers plus, for each, that between its bins.
        """
        counts = self.counts.double()
        counts[self.half] = counts[self.half + 1]  # zeros, often many, are exact in any range
        cells = self.cells(choose_qparams(lows, highs, spec))
        first, last = (torch.floor(v / self.width).long() + self.half for v in (lows, highs))
        within = cells.clamp(first[:, None], last[:, None] + 1)
        becoming, kept = _sums(counts, cells), _sums(counts, within).clamp(min=1)
        even = kept / _sums(counts.sign(), within).clamp(min=1)
        inside = _sums(torch.xlogy(counts, counts), within) / kept - even.log()
        divergence = torch.xlogy(becoming, becoming / kept) + becoming * inside
        return divergence.sum(1) / counts.sum().clamp(min=1)


# The names are those of `Config.observer`.
OBSERVERS: dict[str, type[Observer]] = dict(
    zip(
        OBSERVER_NAMES,
        (MinMaxObserver, MovingAverageObserver, PercentileObserver, MSEObserver, EntropyObserver),
        strict=True,
    )
)


def make_observer(name: str) -> Observer:
    """A new observer by its name in `Config.observer`."""
    if name not in OBSERVERS:
        raise ConfigError(f"unknown observer {name!r}: choose one of {', '.join(OBSERVERS)}")
    return OBSERVERS[name]()


def read_as(name: str, observer: Observer) -> Observer:
    """An observer of another kind that has seen the same, or this one if that needs more.

    >>> seen = MSEObserver()
    >>> seen.observe(torch.tensor([-1.0, 3.0]))
    >>> read_as("minmax", seen).range()
    (-1.0, 3.0)
    """
    other = make_observer(name)
    if isinstance(observer, Histogram) and isinstance(other, Histogram | MinMaxObserver):
        for field in vars(observer).keys() & vars(other).keys() - {"kept"}:
            setattr(other, field, getattr(observer, field))
        return other
    return observer


def merged(observers: Sequence[Observer]) -> Observer:
    """One observer of all that several have seen; these stay as they are."""
    kinds = set(map(type, observers))
    if len(kinds) > 1:
        return Union([merged([o for o in observers if type(o) is kind]) for kind in kinds])
    first, *rest = observers
    if not rest:
        return first
    result = copy.deepcopy(first)
    for other in rest:
        result.merge(other)
    return result


class Union(Observer):
    """Observers of different kinds: the range that holds what each of them keeps."""

    def __init__(self, kinds: Sequence[Observer]) -> None:
        super().__init__()
        self.kinds = kinds

    def range(self) -> tuple[float, float]:
        """Smallest and largest value of the ranges of all."""
        return _hull([o.range() for o in self.kinds])

    def extremes(self) -> tuple[float, float]:
        """Smallest and largest value seen."""
        return _hull([o.extremes() for o in self.kinds])

    def clipped(self, spec: QSpec) -> tuple[float, float]:
        """The smallest range that holds what each would keep."""
        return _hull([o.clipped(spec) for o in self.kinds])


def _hull(ranges: Sequence[tuple[float, float]]) -> tuple[float, float]:
    return min(low for low, _ in ranges), max(high for _, high in ranges)
