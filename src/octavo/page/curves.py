"""Where the points, lines and labels of a plotted curve are, in units of its drawing."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

WIDTH, HEIGHT = 420, 220
LEFT, RIGHT, TOP, BOTTOM = 46, 14, 10, 28  # room for labels
MOST_LINES = 5
SMALLEST = 1e-12  # of a value that is told from zero


@dataclass(frozen=True)
class Curve:
    """Points with what each is; lines of the grid, with their values; labels of the points."""

    caption: str
    points: tuple[tuple[float, float, str], ...]
    x_ticks: tuple[tuple[float, str], ...]
    y_ticks: tuple[tuple[float, str], ...]
    width: int = WIDTH
    height: int = HEIGHT
    left: int = LEFT


def curve_of(caption: str, points: Sequence[tuple[str, float]], unit: str) -> Curve:
    """A curve through labelled values at equal distances; infinite ones are left out.

    >>> [point[0] for point in curve_of("", [("0", 1.0), ("1", 2.0)], "dB").points]
    [46.0, 406.0]
    """
    finite = [(label, value) for label, value in points if math.isfinite(value)]
    lines = grid([value for _, value in finite])
    low, high = lines[0], lines[-1]
    step = (WIDTH - LEFT - RIGHT) / max(len(finite) - 1, 1)

    def height_of(value: float) -> float:
        return round(TOP + (HEIGHT - TOP - BOTTOM) * (high - value) / (high - low), 1)

    across = [round(LEFT + i * step, 1) for i in range(len(finite))]
    return Curve(
        caption,
        tuple(
            (x, height_of(value), f"{label}: {value:.4g} {unit}")
            for x, (label, value) in zip(across, finite, strict=True)
        ),
        tuple((x, label) for x, (label, _) in zip(across, finite, strict=True)),
        tuple((height_of(line), f"{line:g}") for line in lines),
    )


def grid(values: Sequence[float]) -> list[float]:
    """Round numbers (1, 2 or 5 times a power of ten apart) from below all values to above them.

    >>> grid([20.3, 28.9])
    [20.0, 22.0, 24.0, 26.0, 28.0, 30.0]
    """
    low, high = min(values, default=0.0), max(values, default=1.0)
    size = max(abs(low), abs(high))
    if high - low < 1e-9 * size or size < SMALLEST:  # one value, to the eye
        margin = 0.5 * size if size >= SMALLEST else 1.0
        low, high = low - margin, high + margin
    power = 10.0 ** math.floor(math.log10((high - low) / MOST_LINES))
    step = next(
        s for s in (power, 2 * power, 5 * power, 10 * power) if high - low <= MOST_LINES * s
    )
    first, last = math.floor(low / step), math.ceil(high / step)
    return [float(f"{i * step:.12g}") for i in range(first, last + 1)]
