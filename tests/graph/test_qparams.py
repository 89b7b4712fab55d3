import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from octavo.graph import ops
from octavo.graph.qparams import (
    ACTIVATION,
    SYMMETRIC_ACTIVATION,
    WEIGHT,
    choose_qparams,
    weight_qparams,
)

finite = st.floats(-1e6, 1e6, allow_nan=False, width=32)
SPECS = [ACTIVATION, SYMMETRIC_ACTIVATION, WEIGHT]


def test_by_hand():
    p = choose_qparams(-1.0, 3.0, ACTIVATION)
    assert p.scale.item() == pytest.approx(4 / 255)
    assert p.zero_point.item() == round(255 / 4)  # where -1 .. 3 has its 0


def test_symmetric_by_hand():
    p = choose_qparams(-2.0, 1.0, WEIGHT)
    assert p.scale.item() == pytest.approx(2 / 127)
    assert p.zero_point.item() == 0


@pytest.mark.parametrize("spec", SPECS)
def test_an_empty_range_is_one_and_zero(spec):
    p = choose_qparams(0.0, 0.0, spec)
    assert (p.scale.item(), p.zero_point.item()) == (1.0, 0)


@pytest.mark.parametrize("spec", SPECS)
@given(finite, finite)
def test_invariants(spec, a, b):
    low, high = min(a, b), max(a, b)
    p = choose_qparams(low, high, spec)
    assert p.scale > 0
    assert spec.qmin <= p.zero_point <= spec.qmax
    least, most = p.range
    assert least <= 0 <= most
    step = p.scale.item() * 1.0001
    assert least <= min(low, 0) + step
    assert most >= max(high, 0) - step


@pytest.mark.parametrize("spec", SPECS)
@given(st.lists(finite, min_size=1, max_size=50))
def test_rounding_error_is_at_most_half_a_step(spec, values):
    x = torch.tensor(values)
    p = choose_qparams(x.min(), x.max(), spec)
    q = ops.quantize(x, p.scale, p.zero_point, spec.qmin, spec.qmax, spec.dtype)
    error = (ops.dequantize(q, p.scale, p.zero_point) - x).abs().max()
    # one more half step where rounding the zero_point cost a bit of the range
    assert error <= p.scale * 1.001 + 1e-6 * x.abs().max()


@given(finite, finite)
def test_zero_is_exact(a, b):
    p = choose_qparams(min(a, b), max(a, b), ACTIVATION)
    q = ops.quantize(torch.zeros(3), p.scale, p.zero_point, 0, 255, torch.uint8)
    assert ops.dequantize(q, p.scale, p.zero_point).abs().max() == 0


def test_tiny_ranges_keep_their_resolution():
    x = torch.linspace(-1e-9, 1e-9, 11)
    p = choose_qparams(x.min(), x.max(), ACTIVATION)
    q = ops.quantize(x, p.scale, p.zero_point, 0, 255, torch.uint8)
    assert (ops.dequantize(q, p.scale, p.zero_point) - x).abs().max() < 1e-11


@pytest.mark.parametrize("axis", [0, 1])
def test_a_weight_has_a_scale_per_output_channel(axis):
    w = torch.randn(4, 6, 3, 3) * torch.tensor([1.0, 10, 100, 1000]).view(4, 1, 1, 1)
    p = weight_qparams(w, axis)
    expected = w.transpose(0, axis).flatten(1).abs().amax(1) / 127
    torch.testing.assert_close(p.scale, expected)
    assert p.zero_point.eq(0).all()


def test_weights_never_use_minus_128():
    w = torch.tensor([[-1.0, 1.0], [0.5, -3.0]])
    p = weight_qparams(w, 0)
    q = ops.quantize(w, p.scale, p.zero_point, WEIGHT.qmin, WEIGHT.qmax, WEIGHT.dtype, 0)
    assert q.tolist() == [[-127, 127], [21, -127]]


def test_a_range_that_is_no_number_is_refused():
    with pytest.raises(TypeError):
        choose_qparams("low", 1.0, ACTIVATION)
