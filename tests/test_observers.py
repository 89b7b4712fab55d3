import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from octavo import ops
from octavo.errors import ConfigError, DataError
from octavo.observers import (
    OBSERVERS,
    HistogramObserver,
    MinMaxObserver,
    MovingAverageObserver,
    make_observer,
)
from octavo.qparams import ACTIVATION, SYMMETRIC_ACTIVATION, choose_qparams

numbers = st.floats(-1e4, 1e4, width=32, allow_subnormal=False)
values = st.lists(st.lists(numbers, min_size=1, max_size=30), min_size=1, max_size=6)


def observed(kind, batches):
    observer = kind()
    for b in batches:
        observer.observe(torch.tensor(b))
    return observer


@given(values)
def test_minmax_against_the_whole_data(batches):
    everything = [v for b in batches for v in b]
    assert observed(MinMaxObserver, batches).range() == (min(everything), max(everything))


@settings(deadline=None)
@given(values, st.integers(0, 6))
def test_histogram_merges_bit_for_bit(batches, cut):
    whole = observed(HistogramObserver, batches)
    left = observed(HistogramObserver, batches[:cut])
    left.merge(observed(HistogramObserver, batches[cut:]))
    assert left.range() == whole.range()
    assert torch.equal(left.counts, whole.counts)
    assert left.exponent == whole.exponent


@settings(deadline=None)
@given(values)
def test_histogram_counts_every_value_in_its_bin(batches):
    observer = observed(HistogramObserver, batches)
    x = torch.tensor([v for b in batches for v in b], dtype=torch.float64)
    assert observer.counts.sum() == len(x)
    if observer.exponent is not None:
        width = 2.0**observer.exponent
        bins = torch.floor(x / width) + observer.half
        expected = torch.bincount(bins.long(), minlength=2 * observer.half)
        assert torch.equal(observer.counts, expected)


def error_of(x, qparams, spec):
    q = ops.quantize(x, qparams.scale, qparams.zero_point, spec.qmin, spec.qmax, spec.dtype)
    return (ops.dequantize(q, qparams.scale, qparams.zero_point) - x).square().mean().item()


@pytest.mark.parametrize("spec", [ACTIVATION, SYMMETRIC_ACTIVATION])
@pytest.mark.parametrize("kind", ["normal", "laplace", "relu", "outlier"])
def test_mse_against_brute_force_on_the_data(kind, spec):
    x = torch.randn(20000)
    x = {"normal": x, "laplace": x * x.abs(), "relu": x.relu(), "outlier": x.clone()}[kind]
    if kind == "outlier":
        x[:3] = 9.0  # not worth the steps of a wider range
    observer = HistogramObserver()
    for part in x.split(5000):
        observer.observe(part)
    shrunk = [choose_qparams(f * x.min(), f * x.max(), spec) for f in torch.arange(0.2, 1.01, 0.01)]
    best = min(error_of(x, p, spec) for p in shrunk)
    assert error_of(x, observer.qparams(spec), spec) <= best * 1.05
    if kind == "laplace":
        assert best < 0.97 * error_of(x, choose_qparams(x.min(), x.max(), spec), spec)


def test_moving_average_by_hand():
    observer = observed(MovingAverageObserver, [[0.0, 10.0], [0.0, 20.0], [-1.0, 10.0]])
    assert observer.range() == pytest.approx((-0.1, 0.9 * 11 + 0.1 * 10))


def test_moving_average_merge_weighs_by_batches():
    a = observed(MovingAverageObserver, [[0.0, 4.0]])
    a.merge(observed(MovingAverageObserver, [[0.0, 1.0], [0.0, 1.0], [0.0, 1.0]]))
    assert a.range() == pytest.approx((0.0, 1.75))
    a.merge(MovingAverageObserver())
    assert a.range() == pytest.approx((0.0, 1.75))


@pytest.mark.parametrize("name", OBSERVERS)
@pytest.mark.parametrize(
    "x",
    [[0.0, 0.0], [5.0, 5.0], [-3.0], [1e-12, -1e-12], [1e30, -1e30], [0.0, 7.0]],
    ids=["zero", "constant", "negative", "tiny", "huge", "one-sided"],
)
def test_odd_data_gives_usable_qparams(name, x):
    observer = make_observer(name)
    observer.observe(torch.tensor(x))
    p = observer.qparams(ACTIVATION)
    assert torch.isfinite(p.scale)
    assert p.scale > 0
    t = torch.tensor(x)
    q = ops.quantize(t, p.scale, p.zero_point, 0, 255, torch.uint8)
    back = ops.dequantize(q, p.scale, p.zero_point)
    assert (back - t).abs().max() <= 0.01 * t.abs().max()


@pytest.mark.parametrize("name", OBSERVERS)
@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
def test_values_that_are_not_finite_are_refused(name, bad):
    with pytest.raises(DataError, match="NaN or infinity"):
        make_observer(name).observe(torch.tensor([1.0, bad]))


@pytest.mark.parametrize("name", OBSERVERS)
def test_an_empty_tensor_changes_nothing_and_nothing_is_an_error(name):
    observer = make_observer(name)
    observer.observe(torch.empty(0))
    with pytest.raises(DataError, match="nothing was observed"):
        observer.qparams(ACTIVATION)


def test_an_unknown_name_lists_the_known():
    with pytest.raises(ConfigError, match="minmax"):
        make_observer("maxmin")
