import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from octavo.capture.examples import at_the_end, calls, made, resized, values_of


def test_values_of_floats_masks_and_positions():
    low, high, mean, deviation, is_sorted = values_of([torch.tensor([1.0, 3.0, -torch.inf])])
    assert (low, high, mean, is_sorted) == (1, 3, 2, False)
    assert deviation == pytest.approx(2**0.5)
    assert values_of([torch.tensor([[0, 2, 5], [1, 1, 4]])])[4]
    assert not values_of([torch.tensor([[0, 2, 1]])])[4]
    assert values_of([torch.tensor([True, False, True, True])])[2] == 0.75
    assert values_of([torch.full((2,), -torch.inf)])[:2] == (0, 0)


@given(st.integers(0, 5), st.integers(-50, 50), st.integers(0, 50))
def test_what_is_made_is_like_what_was_seen(seed, low, width):
    values = (float(low), float(low + width), low + width / 2, 1.0, False)
    shapes, dtypes = ((3, 7), (4,)), (torch.float32, torch.int64)
    x, ids = made(shapes, dtypes, (values, values), seed)
    for t, shape, dtype in zip((x, ids), shapes, dtypes, strict=True):
        assert t.shape == shape and t.dtype == dtype
        assert t.min() >= low and t.max() <= low + width
    again = made(shapes, dtypes, (values, values), seed)
    assert torch.equal(x, again[0]) and torch.equal(ids, again[1])


def test_sorted_integers_start_at_the_least():
    (offsets,) = made(((6,),), (torch.int64,), ((0.0, 30.0, 15.0, 9.0, True),), 1)
    assert offsets[0] == 0 and (offsets.diff() >= 0).all()


def test_resized_keeps_the_last_items():
    t = torch.arange(5)
    assert resized(t, (2,)).tolist() == [3, 4]
    assert resized(t, (7,)).tolist() == [3, 4, 0, 1, 2, 3, 4]
    assert resized(t.view(1, 5), (2, 4)).tolist() == [[1, 2, 3, 4], [1, 2, 3, 4]]


def test_numbers_at_the_end():
    t = torch.ones(2, 13)
    halved = [2.0**-n for n in (10, 10, *range(10, -1, -1))]
    assert at_the_end(t, 1).tolist() == [halved, halved]
    assert at_the_end(t, 0).tolist() == [[0.5] * 13, [1.0] * 13]
    assert at_the_end(t.long(), 1).tolist() == t.tolist()


def test_integers_that_count_rows_are_made_smaller():
    graph = torch.randn(4, 2), torch.tensor([[9, 3], [5, 6]]), torch.tensor([True])
    taken = calls([graph, graph], lambda x, edges, mask: x[edges[0]])
    for (x, edges, mask), rows in taken:
        assert x is graph[0] and mask is graph[2]
        assert edges.tolist() == [[1, 3], [1, 2]]
        assert torch.equal(rows, x[[1, 3]])


def test_examples_that_are_no_calls_are_left_out():
    def run(x):
        if len(x) > 1:
            raise ValueError
        return x.sum()

    examples = [(torch.ones(n),) for n in (1, 2, 1)]
    assert [result.item() for _, result in calls(examples, run)] == [1, 1]
