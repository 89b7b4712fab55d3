"""What is written in place at capture: computed at once where it depends on no input."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from octavo.capture.export import capture
from octavo.capture.inplace import draws_random, evaluate_writes, mutates
from stages import rewritten

x = torch.rand(3, 4)


class Mask(nn.Module):
    """Written a slice at a time, as shifted windows' are."""

    def forward(self, x):
        mask = x.new_zeros(4)
        for i, part in enumerate((slice(0, -2), slice(-2, None))):
            mask[part] = i + 1
        return x + mask.view(1, 4) + mask.sum()


class FromList(nn.Module):
    def forward(self, x):
        steps = torch.tensor([1.0, 2.0, 3.0, 4.0])
        steps[1:].mul_(2)
        return x * steps


class ReadBefore(nn.Module):
    def forward(self, x):
        mask = torch.zeros(4)
        before = x + mask
        mask[1:] = 3.0
        return before * mask


class ReadByAnotherName(nn.Module):
    """What an in-place operator returns is read before the rest of the tensor is written."""

    def forward(self, x):
        mask = torch.zeros(4)
        part = mask[1:]
        part.fill_(1.0)
        before = x[:, 1:] + part
        mask.mul_(3.0)
        return before * mask[1:]


class Computed(nn.Module):
    """One writes numbers, another what it sees."""

    def forward(self, x):
        mask = torch.zeros(4)
        mask[:2] = 1.0
        mask[2:] = x.mean()
        return x * mask.view(1, 4)


class Buffer(nn.Module):
    def __init__(self):
        super().__init__()
        self.register_buffer("base", torch.ones(4))

    def forward(self, x):
        mask = self.base.clone()
        mask[1:] = 2.0
        return x * mask.view(1, 4)


@pytest.fixture
def functionalized(monkeypatch):
    """Counts how often torch.export had to functionalize."""
    counted = []
    original = torch.export.ExportedProgram.run_decompositions

    def count(self, *args, **kwargs):
        counted.append(self)
        return original(self, *args, **kwargs)

    monkeypatch.setattr(torch.export.ExportedProgram, "run_decompositions", count)
    return counted


def test_what_depends_on_no_input_is_written_once(functionalized):
    for net in (Mask(), FromList()):
        graph, _ = capture(net, (x,))
        assert not [n for n in graph.graph.nodes if mutates(n)]
        assert functionalized == []
        for y in (x, torch.rand(5, 4)):
            torch.testing.assert_close(graph(y)[0], net(y))


@pytest.mark.parametrize("kind", [ReadBefore, Computed, Buffer])
def test_what_does_is_functionalized(kind, functionalized):
    net = kind()
    graph, _ = capture(net, (x,))
    assert len(functionalized) == 1
    for y in (x, torch.rand(5, 4)):
        torch.testing.assert_close(graph(y)[0], net(y))


def test_what_an_in_place_operator_returns_is_what_it_wrote_to():
    net = ReadByAnotherName()
    graph = rewritten(capture(net, (x,))[0])
    torch.testing.assert_close(graph(x)[0], net(x))


def test_what_is_random_stays_so():
    class Noise(nn.Module):
        def forward(self, x):
            noise = x.new_zeros(4)
            noise[1:].normal_()
            return x + noise

    graph, _ = capture(Noise(), (x,))
    first, second = graph(x)[0], graph(x)[0]
    assert torch.equal(first[:, 0], x[:, 0])
    assert not torch.equal(first[:, 1:], second[:, 1:])


class Function(nn.Module):
    def __init__(self, fn):
        super().__init__()
        self.fn = fn
        self.lstm = nn.LSTM(4, 4, num_layers=2, dropout=0.5)

    def forward(self, x):
        return self.fn(self, x)


@pytest.mark.parametrize(
    ("fn", "expected"),
    [
        (lambda net, x: F.dropout(x, 0.5, net.training), False),
        (lambda net, x: F.dropout(x, 0.5), True),
        (lambda net, x: net.lstm(x)[0], False),
        (lambda net, x: F.rrelu(x), False),
        (lambda net, x: x + torch.rand(4), True),
        (lambda net, x: x.bernoulli(0.5), True),
    ],
)
def test_what_is_random(fn, expected):
    graph, _ = capture(Function(fn).eval(), (x,))
    assert draws_random(graph.graph) is expected


def test_a_graph_without_writes_is_left_as_it_is():
    graph, _ = capture(nn.Linear(4, 2), (x,))
    before = str(graph.graph)
    evaluate_writes(graph)
    assert str(graph.graph) == before
