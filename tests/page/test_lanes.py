import pytest
from hypothesis import given
from hypothesis import strategies as st

from octavo.page.lanes import MOST, lanes_of


def test_a_chain_stays_in_one_lane():
    lanes = lanes_of([("a", ()), ("b", ["a"]), ("c", ["b"])])
    assert [(lane.own, lane.into, lane.goes_on) for lane in lanes] == [
        *((0, (), True), (0, (0,), True), (0, (0,), False))
    ]


def test_a_residual_passes_by_and_ends_in_the_sum():
    lanes = lanes_of([("stem", ()), ("conv", ["stem"]), ("add", ["conv", "stem"])])
    assert lanes[1].through == (0,) and lanes[1].own == 1
    assert set(lanes[2].into) == {0, 1} and not lanes[2].through


@st.composite
def networks(draw):
    count = draw(st.integers(1, 30))
    return [
        (str(i), [str(s) for s in draw(st.sets(st.integers(0, i - 1), max_size=4))] if i else [])
        for i in range(count)
    ]


@given(networks())
def test_every_value_reaches_its_readers(network):
    lanes = dict(zip((name for name, _ in network), lanes_of(network), strict=True))
    for i, (name, reads) in enumerate(network):
        assert len(lanes[name].into) <= len(reads)
        assert bool(reads) == bool(lanes[name].into)
        for source in reads:
            between = [n for n, _ in network[int(source) + 1 : i]]
            own = lanes[source].own
            assert lanes[source].goes_on and own in lanes[name].into
            assert all(own in lanes[n].through for n in between)
        assert max(lanes[name].all) < MOST


def test_names_of_rows_that_are_missing_are_left_out():
    assert lanes_of([("a", ["gone"])])[0].into == ()
    with pytest.raises(TypeError):
        lanes_of([("a", None)])
