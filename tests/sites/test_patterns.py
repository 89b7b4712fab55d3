import operator

import pytest
import torch
import torch.nn.functional as F
from torch import fx, nn

from octavo import ANY, PatternError
from octavo.capture.export import capture
from octavo.sites.patterns import Registry, aten_packet, find_matches, match, size
from stages import rewritten

aten = torch.ops.aten


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.bn, self.relu = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU()

    def forward(self, x):
        y = self.relu(self.bn(self.conv(x)))
        return torch.sigmoid(y + F.relu(y))


@pytest.fixture
def traced():
    module = fx.symbolic_trace(Net().eval())
    return module.graph, dict(module.named_modules())


@pytest.fixture
def exported():
    module = capture(Net(), (torch.rand(2, 3, 8, 8),))[0]
    return module.graph, {}


def rows(found):
    return [([n.name for n in nodes], handler) for nodes, handler in found]


@pytest.mark.parametrize(
    ("element", "packet"),
    [
        (nn.ReLU, aten.relu),
        (F.relu, aten.relu),
        (torch.relu, aten.relu),
        ("relu", aten.relu),
        ("aten.relu", aten.relu),
        ("relu.default", aten.relu.default),
        (aten.relu, aten.relu),
        (operator.add, aten.add),
        (operator.iadd, aten.add),
        (torch.cat, aten.cat),
        (nn.Conv2d, aten.conv2d),
        (F.conv2d, aten.conv2d),
        (F.max_pool2d, aten.max_pool2d),
        (nn.Flatten, aten.flatten),
        (nn.Identity, None),
        (id, None),
    ],
)
def test_what_an_element_means_in_an_exported_graph(element, packet):
    assert aten_packet(element) == packet


@pytest.mark.parametrize("form", ["traced", "exported"])
def test_a_nested_tuple_root_first(form, request):
    graph, modules = request.getfixturevalue(form)
    chain = (nn.ReLU, (nn.BatchNorm2d, nn.Conv2d))
    found = [n for n in graph.nodes if match(n, chain, modules)]
    assert len(found) == 1
    assert len(match(found[0], chain, modules)) == 3


@pytest.mark.parametrize("form", ["traced", "exported"])
def test_functions_strings_and_any(form, request):
    graph, modules = request.getfixturevalue(form)

    def count(pattern):
        return sum(match(n, pattern, modules) is not None for n in graph.nodes)

    assert count(operator.add) == 1
    assert count(torch.sigmoid) == 1
    assert count((operator.add, ANY, F.relu if form == "traced" else nn.ReLU)) == 1
    # arity must agree: add has two inputs
    assert count((operator.add, ANY)) == 0
    # inner nodes have one user: y is read twice
    assert count((operator.add, nn.ReLU, ANY)) == 0


def test_a_method_by_name_in_a_traced_graph():
    class Method(nn.Module):
        def forward(self, x):
            return x.relu().view(-1)

    graph = fx.symbolic_trace(Method()).graph
    assert sum(match(n, "relu", {}) is not None for n in graph.nodes) == 1


def test_a_folded_batch_norm_is_still_seen():
    module = rewritten(capture(Net(), (torch.rand(2, 3, 8, 8),))[0])
    found = [match(n, (nn.ReLU, (nn.BatchNorm2d, nn.Conv2d)), {}) for n in module.graph.nodes]
    names = [[n.name for n in nodes] for nodes in found if nodes]
    assert names == [["conv2d", "relu"]]


def test_the_longest_match_wins_whatever_the_order(traced):
    patterns = {nn.ReLU: "r", nn.Conv2d: "c", (nn.ReLU, (nn.BatchNorm2d, nn.Conv2d)): "long"}
    for table in (patterns, dict(reversed(patterns.items()))):
        assert rows(find_matches(*traced, table)) == [(["conv", "bn", "relu"], "long")]


def test_of_equal_length_the_first_registered_wins(traced):
    assert rows(find_matches(*traced, {nn.ReLU: "a", nn.modules.ReLU: "b"})) == [(["relu"], "b")]

    registry = Registry()
    registry.register(nn.Module)("first")
    registry.register(nn.ReLU)("second")
    assert {h for _, h in rows(find_matches(*traced, registry))} == {"first"}


def test_one_site_per_node(traced):
    patterns = {(nn.ReLU, nn.BatchNorm2d): "upper", (nn.BatchNorm2d, nn.Conv2d): "lower"}
    found = rows(find_matches(*traced, patterns))
    covered = [n for nodes, _ in found for n in nodes]
    assert len(covered) == len(set(covered))
    assert found == [(["bn", "relu"], "upper")]


def test_registering_is_stackable_and_returns_the_class():
    registry = Registry()

    @registry.register(nn.ReLU)
    @registry.register("sigmoid")
    class Both:
        pass

    assert registry == {"sigmoid": Both, nn.ReLU: Both}


def test_size_counts_nodes():
    assert size((operator.add, ANY, (nn.ReLU, nn.Conv2d))) == 3


@pytest.mark.parametrize("bad", [(), ((nn.ReLU, nn.Conv2d), nn.ReLU), 3, (nn.ReLU, None), None])
def test_malformed_patterns_are_refused(bad):
    with pytest.raises(PatternError):
        Registry().register(bad)
