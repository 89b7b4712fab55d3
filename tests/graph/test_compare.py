import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from octavo.graph.compare import EXACT, agreement, difference

x = torch.tensor([[1.0, -2.0, 3.0], [0.0, 4.0, -5.0]])


def test_equal_outputs_do_not_differ():
    assert difference([x, None, 3, "name"], [x.clone(), None, 3, "name"]) == ""
    assert difference([x[:0]], [x[:0]]) == ""


@pytest.mark.parametrize(
    "expected, got, what",
    [
        ([x], [x, x], "2 outputs instead of 1"),
        ([x], [x[:1]], "output 0 has shape (1, 3) instead of (2, 3)"),
        ([x], [x.double()], "output 0 has dtype torch.float64 instead of torch.float32"),
        ([x, 3], [x, 4], "output 1 has the value 4 instead of 3"),
        ([x, None], [x, x], "output 1 has the value"),
        ([x], [x.flip(0)], "other numbers"),
        ([x], [x * 1.01], "other numbers: 40.0 dB"),
        ([torch.tensor([1, 2, 3])], [torch.tensor([1, 2, 4])], "33.3% other numbers"),
        ([torch.tensor([1.0, torch.inf])], [torch.tensor([1.0, 2.0])], "elsewhere"),
        ([torch.tensor([1.0, torch.inf])], [torch.tensor([1.0, -torch.inf])], "other infinities"),
        ([torch.zeros(3)], [torch.ones(3)], "-inf dB"),
        ([torch.complex(x, x)], [torch.complex(x, -x)], "other numbers"),
    ],
)
def test_what_differs_is_said(expected, got, what):
    assert what in difference(expected, got)


def test_infinities_and_nan_in_the_same_places_are_equal():
    odd = torch.tensor([1.0, torch.inf, -torch.inf, torch.nan])
    assert difference([odd], [odd.clone()]) == ""


def test_rounding_is_no_difference_and_half_types_round_more():
    assert difference([x], [x * (1 + 1e-6)]) == ""
    assert difference([torch.zeros(3)], [torch.full((3,), 1e-7)]) == ""
    half = x.to(torch.bfloat16)
    assert difference([half], [half * 1.004]) == ""
    assert difference([half], [half * 1.5])


@given(st.floats(20, 100), st.floats(1, 8))
def test_the_limit_is_an_sqnr_in_decibels(db, margin):
    """Adding noise of known energy: refused below the limit, taken above."""
    signal = torch.ones(1000, dtype=torch.float64)
    noisy = signal * (1 + 10 ** (-db / 20))
    assert difference([signal], [noisy], db + margin) != "" or 10 ** (-db / 20) <= 1e-5
    assert difference([signal], [noisy], db - margin) == ""
    assert EXACT == 60


def test_agreement_is_that_of_the_worst_output():
    ones, ids = torch.ones(4), torch.arange(4)
    assert agreement([ones, ids, ones], [ones, ids + 1, ones + 0.1]) == pytest.approx(20, abs=1e-4)
    assert agreement([ones], [ones]) == math.inf
    assert agreement([0 * ones], [ones]) == -math.inf
