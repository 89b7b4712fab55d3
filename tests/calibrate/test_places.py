"""Places of a value that are counted, against numbers picked by hand."""

import torch
from torch import fx, nn

from octavo.calibrate.places import sample_nodes, sampled, steps_of
from octavo.capture.export import capture


class Net(nn.Module):
    """Images, then tokens, and an operator that does not say what its dimensions count."""

    def __init__(self):
        super().__init__()
        self.stem, self.mix = nn.Conv2d(3, 8, 3, padding=1), nn.Linear(8, 16)

    def forward(self, x):
        joined = torch.cat([self.stem(x), self.stem(x).sigmoid()], 1).relu()
        return joined, self.mix(joined[:, :8].flatten(2).transpose(1, 2)).tanh(), x * 2


def values():
    torch.manual_seed(0)
    x = torch.randn(4, 3, 24, 20)
    graph = capture(Net().eval(), (x,), {}).module
    relu, tanh, mul = next(iter(reversed(graph.graph.nodes))).args[0]
    return graph, dict(zip((relu, tanh, mul), graph(x), strict=True))


def test_places_are_spaced_and_channels_all_taken():
    _, found = values()
    (relu, image), (tanh, tokens), (mul, other) = found.items()
    samples, channels, *step = steps_of(relu, image, 400)
    assert (samples, channels) == (1, 1) and min(step) > 1
    batch, of_tokens, width = steps_of(tanh, tokens, 400)
    assert (batch, width) == (1, 1) and of_tokens > 1
    (step,) = steps_of(mul, other, 400)
    assert step == 13  # of 14, which 5,760 values would have a divisor in common with


def test_all_places_where_there_are_few():
    _, found = values()
    for node, value in found.items():
        steps = steps_of(node, value, value.numel())
        assert set(steps) == {1}
        (all_values,) = sampled(value, steps)
        assert torch.equal(all_values.flatten(), value.flatten())


def test_the_middle_one_of_each_step():
    value = torch.arange(60.0).reshape(1, 2, 5, 6)
    (image,) = sampled(value, (1, 1, 2, 3))
    assert image.tolist() == [[[[7.0, 10.0], [19.0, 22.0]], [[37.0, 40.0], [49.0, 52.0]]]]
    (flat,) = sampled(value, (7,))
    assert flat.tolist() == [3.0, 10.0, 17.0, 24.0, 31.0, 38.0, 45.0, 52.0, 59.0]


def test_nothing_is_sampled_where_only_extremes_count():
    assert sampled(torch.ones(3), ()) == []


def test_a_graph_samples_the_same():
    module, found = values()
    graph, copies = fx.Graph(), {}
    graph.graph_copy(module.graph, copies)
    all_steps = {node: steps_of(node, value, 400) for node, value in found.items()}
    outputs = [sample_nodes(graph, copies[node], steps) for node, steps in all_steps.items()]
    graph.output(tuple(outputs))
    torch.manual_seed(0)
    got = fx.GraphModule(module, graph)(torch.randn(4, 3, 24, 20))
    for (node, value), samples in zip(found.items(), got, strict=True):
        assert torch.equal(samples, sampled(value, all_steps[node])[0])
