import pytest
import torch
from torch import nn

from octavo import ConfigError
from octavo.capture.submodules import SubmoduleCalls


class Twice(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b, self.idle = nn.Linear(3, 3), nn.Linear(3, 2), nn.Linear(3, 2)

    def forward(self, x):
        x = self.a(self.a(x))
        y = self.b(x)
        x.zero_()  # what was seen must not change
        return y


def batches(count):
    return [((torch.rand(2, 3),), {}) for _ in range(count)]


def test_every_call_is_seen_once_and_in_order_whoever_pulls():
    net, data = Twice(), batches(3)
    calls = SubmoduleCalls(net, ["a", "b"], data)
    first = next(calls.calls("b"))
    torch.testing.assert_close(first[0][0], net.a(net.a(data[0][0][0])))
    assert len(calls.queues["a"]) == 2  # of the one batch that had to run
    assert torch.equal(next(calls.calls("a"))[0][0], data[0][0][0])
    rest = list(calls.calls("a"))
    assert len(rest) == 2 * 3 - 1
    assert len(list(calls.queued("b"))) == 2
    assert not calls.run_batch()


def test_calls_that_are_not_of_the_data_do_not_count():
    net = Twice()
    calls = SubmoduleCalls(net, ["a"], batches(1))
    net.a(torch.rand(5, 3))  # as capture does
    assert not calls.queues["a"]
    calls.close()
    calls.run_batch()
    assert not calls.queues["a"]


def test_what_is_never_called_has_no_calls():
    assert list(SubmoduleCalls(Twice(), ["idle"], batches(2)).calls("idle")) == []


@pytest.mark.parametrize("paths", [[], "a", ["c"], ["a", "a.b"]])
def test_paths_that_do_not_do_are_refused(paths):
    with pytest.raises(ConfigError, match="submodules"):
        SubmoduleCalls(Twice(), paths, [])
