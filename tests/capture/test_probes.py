import pytest
import torch
from torch import nn

import octavo
from octavo.capture.export import capture
from octavo.capture.probes import is_comparable, with_probes, without_probes
from octavo.passes import run_passes


class Masked(nn.Module):
    """Returns the rows above a threshold."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(8, 8)

    def forward(self, x):
        y = self.linear(x)
        return y[y[..., 0] > 0]


class Largest(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(8, 8)

    def forward(self, x):
        return self.linear(x).argmax(-1)


def graph_of(net):
    return run_passes(capture(net.eval(), (torch.randn(6, 20, 8),)))


@pytest.mark.parametrize("kind", [Masked, Largest])
def test_the_values_before_are_further_outputs(kind):
    net, x = kind().eval(), torch.randn(3, 20, 8)
    plain = graph_of(net)
    graph = with_probes(plain)
    outputs = graph.module(x)
    torch.testing.assert_close(graph.unflatten(outputs), net(x))
    expected = net.linear(x)
    assert any(o.shape == expected.shape and torch.equal(o, expected) for o in outputs[1:])
    assert len(plain.module(x)) == 1  # it is not changed
    first, *others = graph.graph.output_node().args[0]
    assert not is_comparable(first) and others and all(map(is_comparable, others))
    assert len(without_probes(graph.module, graph.signature)(x)) == 1


def test_other_graphs_stay_as_they_are():
    graph = graph_of(nn.Linear(8, 4))
    assert with_probes(graph) is graph
    assert without_probes(graph.module, graph.signature) is graph.module


@pytest.mark.parametrize("config", ["fast", "balanced"])
@pytest.mark.parametrize("kind", [Masked, Largest])
def test_such_a_model_is_quantized_and_its_noise_measured(kind, config, tmp_path):
    net = kind().eval()
    q = octavo.quantize(net, torch.randn(32, 20, 8), config=config)
    assert 25 < q.report().output_sqnr < 60
    octavo.save(q, tmp_path / "m.octavo")
    x = torch.randn(3, 20, 8)
    expected = q(x)
    for engine in ("openvino", "torch_int8"):
        got = octavo.load(tmp_path / "m.octavo").compile(engine)(x)
        assert got.shape == expected.shape
        if kind is Masked:
            torch.testing.assert_close(got, expected)
