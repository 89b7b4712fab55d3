import math

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from octavo.page.curves import BOTTOM, HEIGHT, LEFT, TOP, WIDTH, curve_of, grid

NUMBERS = st.floats(-1e6, 1e6, allow_nan=False)


@given(st.lists(NUMBERS, min_size=1, max_size=12))
@example([5e-324])
@example([0.0, 1e-200])
@example([1e6, 1e6 + 1e-9])
def test_lines_are_round_and_enclose_all_values(values):
    lines = grid(values)
    step = lines[1] - lines[0]
    assert lines[0] <= min(values) + 1e-6 * step and max(values) - 1e-6 * step <= lines[-1]
    assert 2 <= len(lines) <= 8
    digits = step / 10 ** math.floor(math.log10(step) + 1e-9)
    assert any(digits == pytest.approx(d, rel=1e-6) for d in (1, 2, 5, 10))


def test_points_between_the_lines():
    curve = curve_of("gain", [("0", 10.0), ("1", 20.0), ("all", math.inf)], "dB")
    assert curve.points == ((LEFT, HEIGHT - BOTTOM, "0: 10 dB"), (WIDTH - 14, TOP, "1: 20 dB"))
    assert [text for _, text in curve.x_ticks] == ["0", "1"]
    assert [text for _, text in curve.y_ticks] == ["10", "12", "14", "16", "18", "20"]


def test_no_values_no_points():
    assert curve_of("", [("0", math.nan)], "ms").points == ()
    with pytest.raises(TypeError):
        grid(["a"])
