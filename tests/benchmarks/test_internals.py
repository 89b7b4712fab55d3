from functools import reduce

import torch
from benchmarks.internals import (
    error_sources,
    openvino_compiled_model,
    openvino_model,
    sqnr_of_all,
)
from torch import nn

import octavo


def network():
    layers = [nn.Conv2d(3, 16, 3), nn.ReLU(), nn.Conv2d(16, 16, 3), nn.ReLU()]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 4)).eval()


def uses(graph):
    """How many quantize operators a graph has, and how many int8 weights."""
    nodes = graph.graph.nodes
    tensors = [reduce(getattr, n.target.split("."), graph) for n in nodes if n.op == "get_attr"]
    quantizes = sum(n.target is torch.ops.octavo.quantize.default for n in nodes)
    return quantizes, sum(t.dtype == torch.int8 for t in tensors)


def test_error_sources_take_weights_and_activations_apart():
    net, batches = network(), [torch.rand(8, 3, 12, 12) for _ in range(4)]
    found = error_sources(net, batches, octavo.PRESETS["balanced"])
    quantizes, weights = uses(found.int8.graph_module)
    assert quantizes >= 3
    assert weights == 3
    assert uses(found.int8_weights) == (0, 3)
    assert uses(found.int8_activations) == (quantizes, 0)

    x = torch.rand(16, 3, 12, 12)
    expected = net(x)
    whole = sqnr_of_all([(expected, found.int8(x))])
    partly = [
        sqnr_of_all([(expected, graph(x)[0])])
        for graph in (found.int8_weights, found.int8_activations)
    ]
    assert 20 < whole < max(partly) < 100

    names, energies = zip(*found.rounding_noise, strict=True)
    assert len(names) >= 3
    assert energies[0] > 0
    assert list(energies) == sorted(energies, reverse=True)


def test_sqnr_of_all_adds_up_energies():
    near = torch.tensor([3.0, 4.0]), torch.tensor([3.0, 4.5])
    assert sqnr_of_all([near]) == sqnr_of_all([near, near]) == 20
    assert sqnr_of_all([near, (torch.zeros(2), torch.zeros(2))]) == 20


def test_what_the_openvino_engine_compiled():
    x = torch.rand(2, 3, 12, 12)
    compiled = octavo.quantize(network(), [x, x], progress=False).compile()
    compiled(x)
    assert openvino_model(compiled).get_ops()
    assert openvino_compiled_model(compiled, x).get_runtime_model().get_ops()
