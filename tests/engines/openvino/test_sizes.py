"""Numbers that OpenVINO computes from sizes, against Python's own arithmetic."""

import math
import operator

import numpy as np
import openvino
import openvino.opset15 as ov
import pytest

from octavo.engines.openvino.sizes import EXACT, TABLED, Real, floor_quotient, scaled
from octavo.engines.openvino.table import TABLE, Unsupported
from octavo.engines.openvino.values import scalar

SIZES = [0, 1, 2, 7, 28, 57, 99, 100, 200, 1000, 16383, 48000]


def computed(fn, sizes=SIZES):
    """fn of a size, run by OpenVINO at each of these."""
    size = ov.parameter(openvino.PartialShape([]), openvino.Type.i64)
    model = openvino.Model([ov.result(fn(size.output(0)))], [size], "sizes")
    compiled = openvino.Core().compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return [compiled(np.int64(n))[0].item() for n in sizes]


@pytest.mark.parametrize("factor", [0.29, 0.57, 0.6, 1.3, 0.37, 2.0, 1 / 3, math.pi, 0.01])
def test_a_size_times_a_factor_is_rounded_as_float64(factor):
    assert computed(lambda n: scaled(n, factor)) == [math.floor(n * factor) for n in SIZES]
    assert scaled(100, factor) == math.floor(100 * factor)


@pytest.mark.parametrize(
    ("python", "how"), [(math.ceil, np.ceil), (math.trunc, np.trunc), (round, np.rint)]
)
def test_other_ways_to_round(python, how):
    def function(n):
        return n * 0.7 - 3.5

    expected = [python(function(n)) for n in SIZES]
    assert computed(lambda n: Real(n, function).rounded(how)) == expected


def test_beyond_the_table_there_is_no_size_and_no_number():
    def root(n):
        return Real(n, np.sqrt)

    assert computed(lambda n: root(n).rounded(np.floor), [TABLED - 1, TABLED]) == [255, -EXACT]
    below, beyond = computed(lambda n: root(n).as_float(), [2, TABLED])
    assert below == pytest.approx(math.sqrt(2)) and math.isnan(beyond)


def test_integers_are_divided_toward_minus_infinity():
    sizes = [7, 8, -7, -8]
    assert computed(lambda n: floor_quotient(n, scalar(4)), sizes) == [n // 4 for n in sizes]


def test_a_fraction_of_two_sizes_is_not_known():
    x, y = (ov.parameter(openvino.PartialShape([]), openvino.Type.i64).output(0) for _ in "xy")
    with pytest.raises(Unsupported, match="a fraction of two sizes"):
        TABLE[operator.truediv](x, y)
