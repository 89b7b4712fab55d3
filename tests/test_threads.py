import pytest
import torch

import octavo
from octavo import threads
from octavo.threads import fitting_threads


@pytest.fixture(autouse=True)
def two_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize(("busy", "inside"), [(True, 1), (False, 2)])
def test_one_thread_where_several_take_longer(monkeypatch, busy, inside):
    monkeypatch.setattr(threads, "_is_busy", lambda count: busy)
    with fitting_threads():
        assert torch.get_num_threads() == inside
    assert torch.get_num_threads() == 2


def test_they_are_as_before_after_an_error(monkeypatch):
    monkeypatch.setattr(threads, "_is_busy", lambda count: True)
    with pytest.raises(octavo.DataError), fitting_threads():
        raise octavo.DataError("bad data")
    assert torch.get_num_threads() == 2


def test_a_choice_of_the_user_is_left_alone(monkeypatch):
    torch.set_num_threads(1)
    monkeypatch.setattr(threads, "_is_busy", lambda count: pytest.fail("asked"))
    with fitting_threads():
        assert torch.get_num_threads() == 1


@pytest.mark.parametrize(("several", "busy"), [(0.5, False), (3.0, True)])
def test_measured_with_small_operators(monkeypatch, several, busy):
    clock = [0.0]

    def relu(numbers):
        clock[0] += several if torch.get_num_threads() == 2 else 1.0

    monkeypatch.setattr(threads.torch, "relu", relu)
    monkeypatch.setattr(threads.time, "perf_counter", lambda: clock[0])
    assert threads._is_busy(2) is busy
    assert torch.get_num_threads() == 2


def test_quantize_computes_so(monkeypatch):
    monkeypatch.setattr(threads, "_is_busy", lambda count: True)
    seen = []

    class Net(torch.nn.Linear):
        def forward(self, x):
            seen.append(torch.get_num_threads())
            return super().forward(x)

    octavo.quantize(Net(8, 4), torch.randn(16, 8))
    assert set(seen) == {1} and torch.get_num_threads() == 2
