"""Masks of shifted windows are added where the scores are, with the same numbers."""

import pytest
import torch
from torch import nn

import octavo
from octavo.capture.export import capture
from stages import rewritten

aten = torch.ops.aten
WINDOWS, HEADS, TOKENS = 4, 2, 5


class Windowed(nn.Module):
    """Scores of (n * windows, heads, tokens, tokens), masked as Swin does it."""

    def __init__(self, back=None, first=1):
        super().__init__()
        self.query, self.key = nn.Linear(6, 6), nn.Linear(6, 6)
        self.back = back or (-1, HEADS, TOKENS, TOKENS)
        shape = (first, WINDOWS, 1, TOKENS, TOKENS)
        self.register_buffer("mask", torch.zeros(shape).masked_fill(torch.rand(shape) > 0.5, -100))

    def forward(self, x):
        q, k = (f(x).view(-1, TOKENS, HEADS, 3).transpose(1, 2) for f in (self.query, self.key))
        scores = q @ k.transpose(-2, -1)
        apart = scores.view(scores.shape[0] // WINDOWS, WINDOWS, HEADS, TOKENS, TOKENS)
        return (apart + self.mask).view(self.back).softmax(-1)


def tidied(net, x):
    return rewritten(capture(net, (x,))[0])


def reshaped(graph):
    """Shapes of rank five that are left."""
    sizes = [n.args[1] for n in graph.graph.nodes if n.target is aten.reshape.default]
    return [s for s in sizes if len(s) == 5]


def samples(n):
    return torch.randn(n * WINDOWS, TOKENS, 6)


def test_scores_stay_in_their_shape():
    net = Windowed()
    graph = tidied(net, samples(2))
    assert reshaped(graph) == []
    for x in map(samples, (1, 2, 3)):
        torch.testing.assert_close(graph(x)[0], net(x))


@pytest.mark.parametrize(
    "net",
    [Windowed(back=(-1, WINDOWS * HEADS, TOKENS, TOKENS)), Windowed(first=2)],
    ids=["another shape after it", "a mask of each sample"],
)
def test_what_looks_like_it_is_left_alone(net):
    x = samples(2)
    graph = tidied(net, x)
    assert len(reshaped(graph)) == 1
    torch.testing.assert_close(graph(x)[0], net(x))


def test_quantized_it_runs_alike_on_both_engines():
    net = Windowed()
    q = octavo.quantize(net, [samples(4)])
    x = samples(3)
    assert octavo.sqnr(net(x), q(x)) > 20
    assert octavo.sqnr(q(x), q.compile()(x)) > 30
