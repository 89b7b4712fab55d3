import copy
import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from octavo.calibrate.observers import (
    OBSERVERS,
    SHARES,
    EntropyObserver,
    Histogram,
    MinMaxObserver,
    MovingAverageObserver,
    MSEObserver,
    PercentileObserver,
    make_observer,
    merged,
)
from octavo.errors import ConfigError, DataError
from octavo.graph import ops
from octavo.graph.qparams import ACTIVATION, SYMMETRIC_ACTIVATION, choose_qparams

numbers = st.floats(-1e4, 1e4, width=32, allow_subnormal=False)
extremes = st.sampled_from([0.0, -0.0, 1e-30, -1e-30, 1e30, -1e30, 3e38])
values = st.lists(st.lists(numbers | extremes, min_size=1, max_size=30), min_size=1, max_size=6)
STREAMING = ["percentile", "mse", "entropy"]


def observed(kind, batches):
    observer = kind()
    for b in batches:
        observer.observe(torch.as_tensor(b))
    return observer


def sample(kind, n=20000):
    """Data of a kind that networks have."""
    x = torch.randn(n, generator=torch.Generator().manual_seed(len(kind)))
    if kind == "outlier":
        x[:3] = 9.0  # not worth the steps of a wider range
    kinds = {
        "laplace": x * x.abs(),
        "relu": x.relu(),
        "gelu": F.gelu(2 * x - 1),
        "skewed": x.exp() - 1,
    }
    return kinds.get(kind, x)


@pytest.mark.parametrize("shape", [(1, 64, 56, 56), (8, 96, 28, 28), (3, 1000, 768)])
def test_of_a_large_tensor_all_channels_and_columns_are_counted(shape):
    places = torch.cartesian_prod(*(torch.arange(n) for n in shape)).view(*shape, -1)
    observer, numel = MSEObserver(), math.prod(shape)
    x = torch.arange(numel).view(shape)
    kept = observer.sampled(x, samples=1)
    assert Histogram.of_tensor <= len(kept) < 2 * Histogram.of_tensor
    for dim, size in enumerate(shape):
        counts = torch.bincount(places.view(numel, -1)[kept, dim], minlength=size)
        assert counts.max() - counts.min() <= 0.05 * counts.float().mean() + 2
    assert len(observer.sampled(x, samples=numel)) == numel


KINDS = ["normal", "laplace", "relu", "outlier", "gelu", "skewed"]


@given(values)
def test_minmax_against_the_whole_data(batches):
    everything = [v for b in batches for v in b]
    expected = torch.tensor(everything)
    assert observed(MinMaxObserver, batches).range() == (expected.min(), expected.max())


@given(values, st.integers(0, 6), st.randoms())
def test_histogram_is_the_same_in_any_order_and_in_shards_bit_for_bit(batches, cut, random):
    whole = observed(Histogram, batches)
    shuffled = random.sample(batches, len(batches))
    left, right = observed(Histogram, shuffled[:cut]), observed(Histogram, shuffled[cut:])
    kept = right.counts.clone()
    left.merge(right)
    assert left.range() == whole.range()
    assert torch.equal(left.counts, whole.counts)
    assert left.exponent == whole.exponent
    assert torch.equal(right.counts, kept)


@given(values)
def test_histogram_counts_every_value_in_its_bin(batches):
    observer = observed(Histogram, batches)
    x = torch.tensor([v for b in batches for v in b]).double()
    largest = x.abs().max()
    assert largest < observer.half * observer.width
    assert observer.exponent == observer.finest or largest * 2 >= observer.half * observer.width
    bins = torch.floor(x / observer.width) + observer.half
    expected = torch.bincount(bins.long(), minlength=2 * observer.half)
    assert torch.equal(observer.counts, expected)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", STREAMING)
def test_shards_in_another_order_give_the_same_qparams(name, kind):
    whole, (left, right) = make_observer(name), (make_observer(name) for _ in range(2))
    parts = sample(kind).split(3000)
    for i, part in enumerate(parts):
        whole.observe(part)
        (left if i % 2 else right).observe(parts[-1 - i])
    left.merge(right)
    assert left.qparams(ACTIVATION) == whole.qparams(ACTIVATION)


@given(values, st.floats(0.2, 1.0))
def test_percentile_is_within_a_bin_of_the_quantiles_of_all_data(batches, kept):
    observer = observed(lambda: PercentileObserver(kept), batches)
    x = torch.tensor([v for b in batches for v in b]).double()
    tail = (1 - kept) / 2
    lowest = torch.quantile(x, tail, interpolation="lower")
    highest = -torch.quantile(-x, tail, interpolation="lower")
    low, high = observer.clipped(ACTIVATION)
    assert max(x.min(), lowest - observer.width) <= low <= lowest
    assert highest <= high <= min(x.max(), highest + observer.width)


def test_percentile_keeps_9999_of_10000_and_zero_exactly():
    x = sample("relu", 100_000)
    low, high = observed(PercentileObserver, x.split(7000)).clipped(ACTIVATION)
    assert low == 0
    assert (x > high).sum() in (3, 4, 5)
    assert high < x.max()


def quantized(x, p):
    """`x` as integers, back as real numbers."""
    q = ops.quantize(x, p.scale, p.zero_point, p.spec.qmin, p.spec.qmax, p.spec.dtype)
    return ops.dequantize(q, p.scale, p.zero_point)


def error_of(x, qparams):
    return (quantized(x, qparams) - x).square().mean().item()


@pytest.mark.parametrize("spec", [ACTIVATION, SYMMETRIC_ACTIVATION])
@pytest.mark.parametrize("kind", KINDS)
def test_mse_against_brute_force_on_the_data(kind, spec):
    x = sample(kind)
    observer = observed(MSEObserver, x.split(5000))
    shares = torch.arange(0.04, 1.01, 0.08)
    errors = {
        (a, b): error_of(x, choose_qparams(a * x.min(), b * x.max(), spec))
        for a in shares.tolist()
        for b in shares.tolist()
    }
    found = error_of(x, observer.qparams(spec))
    assert found <= min(errors.values()) * 1.03
    if kind == "laplace":
        assert found < 0.97 * error_of(x, choose_qparams(x.min(), x.max(), spec))


def test_mse_clips_one_end_alone_where_the_other_is_dense():
    x = sample("normal", 400_000) - 1
    x[0] = 9.0
    x = F.gelu(x)  # most values between -0.17 and 0
    together = [
        choose_qparams(a * x.min(), a * x.max(), ACTIVATION) for a in torch.arange(0.2, 1.01, 0.04)
    ]
    observer = MSEObserver()
    observer.observe(x, samples=100)  # so that every value is counted
    p = observer.qparams(ACTIVATION)
    assert error_of(x, p) < 0.9 * min(error_of(x, q) for q in together)


def test_mse_is_exact_for_billions_of_values():
    observer = observed(MSEObserver, [sample("normal")])
    lows, highs = SHARES * observer.low, SHARES * observer.high
    few = observer.errors(lows, highs, ACTIVATION)
    for _ in range(11):  # thrice the data
        twin = copy.deepcopy(observer)
        observer.merge(twin)
        observer.merge(twin)
    torch.testing.assert_close(observer.errors(lows, highs, ACTIVATION) / 3**11, few)


def divergence(x, width, low, high, spec):
    """KL(P || Q) as `EntropyObserver` defines it, bin by bin."""
    counts = {}
    for b in torch.floor(x.double() / width).long().tolist():
        counts[b] = counts.get(b, 0) + 1
    counts[0] = counts.get(1, 0)
    counts = {b: n for b, n in counts.items() if n}
    p = choose_qparams(low, high, spec)
    scale, zero_point = p.scale.item(), p.zero_point.item()
    integers: dict[int, list[int]] = {}
    for b in counts:
        q = round((b + 0.5) * width / scale) + zero_point
        integers.setdefault(min(max(q, spec.qmin), spec.qmax), []).append(b)
    inside = {b for b in counts if low // width <= b <= high // width}
    total = sum(counts.values())
    kept = {i: max(1, sum(counts[b] for b in bins if b in inside)) for i, bins in integers.items()}
    result = 0.0
    for i, bins in integers.items():
        in_p = sum(counts[b] for b in bins) / total
        in_q = kept[i] / total
        within = [b for b in bins if b in inside]
        if not within:
            result += in_p * math.log(in_p / in_q)
        for b in within:
            share = counts[b] / kept[i]
            result += in_p * share * math.log(in_p * share / (in_q / len(within)))
    return result


@pytest.mark.parametrize("spec", [ACTIVATION, SYMMETRIC_ACTIVATION])
@pytest.mark.parametrize("kind", KINDS)
def test_entropy_against_its_definition_in_loops(kind, spec):
    x = sample(kind, 3000)
    observer = observed(EntropyObserver, x.split(700))
    smallest, largest = x.min().item(), x.max().item()
    ranges = []
    for share in [1.0, 0.9, 0.77, 0.6, 0.45, 0.3, 0.2, 0.1, 0.02]:
        threshold = share * max(-smallest, largest)
        ranges.append((max(smallest, -threshold), min(largest, threshold)))
    lows, highs = torch.tensor(ranges, dtype=torch.float64).T
    expected = [divergence(x, observer.width, *r, spec) for r in ranges]
    got = observer.divergences(lows, highs, spec)
    assert got.tolist() == pytest.approx(expected, rel=1e-6)
    chosen = divergence(x, observer.width, *observer.clipped(spec), spec)
    assert chosen <= min(expected) * (1 + 1e-6)


def test_moving_average_by_hand():
    observer = observed(MovingAverageObserver, [[0.0, 10.0], [0.0, 20.0], [-1.0, 10.0]])
    assert observer.range() == pytest.approx((-0.1, 0.9 * 11 + 0.1 * 10))


def test_moving_average_merge_weighs_by_batches():
    a = observed(MovingAverageObserver, [[0.0, 4.0]])
    a.merge(observed(MovingAverageObserver, [[0.0, 1.0], [0.0, 1.0], [0.0, 1.0]]))
    assert a.range() == pytest.approx((0.0, 1.75))
    a.merge(MovingAverageObserver())
    assert a.range() == pytest.approx((0.0, 1.75))


@pytest.mark.parametrize("spec", [ACTIVATION, SYMMETRIC_ACTIVATION])
@pytest.mark.parametrize("name", OBSERVERS)
@pytest.mark.parametrize(
    "x",
    [[0.0, 0.0], [5.0, 5.0], [-3.0], [1e-12, -1e-12], [1e30, -1e30], [0.0, 7.0], [-7.0, 0.0]],
    ids=["zero", "constant", "negative", "tiny", "huge", "positive side", "negative side"],
)
def test_odd_data_gives_usable_qparams(name, x, spec):
    t = torch.tensor(x)
    p = observed(lambda: make_observer(name), [x]).qparams(spec)
    assert torch.isfinite(p.scale)
    assert p.scale > 0
    assert (quantized(t, p) - t).abs().max() <= 0.01 * t.abs().max()


@pytest.mark.parametrize("name", OBSERVERS)
def test_values_below_the_smallest_scale_become_zeros(name):
    x = torch.tensor([1e-30, -1e-30, 0.0])
    p = observed(lambda: make_observer(name), [x]).qparams(ACTIVATION)
    assert not quantized(x, p).any()


@pytest.mark.parametrize("name", OBSERVERS)
@pytest.mark.parametrize("sign", [1, -1])
def test_data_on_one_side_of_zero_spends_no_integers_on_the_other(name, sign):
    p = observed(lambda: make_observer(name), [sign * sample("relu")]).qparams(ACTIVATION)
    assert p.zero_point == (0 if sign == 1 else 255)


def test_one_far_outlier():
    x = sample("normal", 100_000)
    x[7] = 300.0
    clipped = {
        n: observed(lambda n=n: make_observer(n), [x]).clipped(ACTIVATION) for n in OBSERVERS
    }
    assert clipped["minmax"] == (x.min(), 300)
    # (300 - high)**2 of one and (high / 255)**2 / 12 of 100,000 are least in sum at 266
    assert clipped["mse"][1] == pytest.approx(266, abs=10)
    assert clipped["percentile"][1] < 5
    assert clipped["entropy"][1] < 64  # where integers are wider than bins by half


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


def test_observers_of_different_kinds_keep_what_each_keeps():
    low, high = sample("normal") - 9, sample("normal")
    high[7] = 300.0
    kinds = observed(MinMaxObserver, [low]), observed(PercentileObserver, [high])
    both = merged([*kinds, observed(MinMaxObserver, [low - 1])])
    assert both.extremes() == (low.min() - 1, 300)
    assert both.clipped(ACTIVATION) == (low.min() - 1, kinds[1].clipped(ACTIVATION)[1])
