import pytest
import torch
from torch import fx, nn

import octavo
from octavo import DataError
from octavo.calibrate.ranges import Ranges
from octavo.capture.float_graph import FloatGraph
from octavo.graph.qparams import ACTIVATION
from octavo.sites.sites import match
from stages import converted, matched


def sites_of(module):
    return match(FloatGraph(module, None), {})


def test_watchers_see_each_value_and_all_live_ones():
    graph = fx.symbolic_trace(nn.Sequential(nn.Linear(4, 3), nn.ReLU()))
    seen = {}

    def watch(node, env):
        seen[node.name] = (env[node.name].clone(), sorted(env))

    x = torch.randn(2, 4)
    layers = {n: watch for n in graph.graph.nodes if n.op == "call_module"}
    out = Ranges(sites_of(graph), layers).observe([x])
    torch.testing.assert_close(seen["_0"][0], graph.get_submodule("0")(x))
    assert torch.equal(seen["_1"][0], out)
    assert seen["_1"][1] == ["_0", "_1"]  # the input was freed after its last use


def test_a_rule_may_look_at_what_its_site_gives():
    class Looking(octavo.Weighted):
        def observe(self, node, env):
            self.seen = env[node.name].shape

    sites = match(matched(nn.Linear(4, 2), torch.rand(3, 4)).graph, {nn.Linear: Looking})
    Ranges(sites).observe([torch.rand(5, 4)])
    (rule,) = sites.rules.values()
    assert rule.seen == (5, 2)


def test_an_error_names_the_node_and_the_shapes():
    graph = fx.symbolic_trace(nn.Sequential(nn.Linear(4, 3)))
    with pytest.raises(DataError, match=r"'_0'.*\(2, 5\)"):
        Ranges(sites_of(graph)).observe([torch.rand(2, 5)])


def test_the_range_is_searched_again_when_more_was_observed():
    sites = matched(nn.Linear(4, 2), torch.rand(8, 4))
    ranges, (x,) = Ranges(sites), sites.observed
    ranges.observe([torch.rand(8, 4)])
    first = ranges.clipped([x], ACTIVATION)
    assert ranges.clipped([x], ACTIVATION) == first
    ranges.observe([torch.rand(8, 4) * 100])
    assert ranges.clipped([x], ACTIVATION)[1] > 10 * first[1]


def test_what_other_processes_saw_is_merged_as_if_seen_here():
    batches = [torch.randn(4, 6) * s for s in (1, 3)]
    sites = matched(nn.Linear(6, 2), batches[0])
    one, a, b = Ranges(sites), Ranges(sites), Ranges(sites)
    for x, share in zip(batches, (a, b), strict=True):
        one.observe([x])
        share.observe([x])
    a.merge(b.state())
    (x,) = sites.observed
    assert a.clipped([x], ACTIVATION) == one.clipped([x], ACTIVATION)


def test_a_value_nobody_observed_has_no_range():
    emission = converted(nn.Linear(4, 2), [torch.rand(8, 4)])
    ranges = Ranges(emission.sites)
    output = emission.sites.graph.graph.output_node()
    with pytest.raises(DataError, match="nothing was observed"):
        ranges.clipped([output], ACTIVATION)


def test_what_cannot_be_quantized_is_told_by_node():
    sites = matched(nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 2)), torch.rand(2, 4))
    with pytest.raises(DataError, match=r"output of .*NaN or infinity"):
        Ranges(sites).observe([torch.full((2, 4), float("inf"))])


def test_an_observer_of_the_site_that_reads_a_value_through_others():
    net = nn.Sequential(nn.Linear(6, 6), nn.ReLU(), nn.Flatten(0), nn.Unflatten(0, (-1, 6)))
    net.append(nn.Linear(6, 2))
    sites = {"4": octavo.SiteConfig(observer="minmax")}
    ranges = Ranges(matched(net, torch.rand(4, 6), sites=sites))
    kinds = {n.name: type(o).__name__ for n, o in ranges.observers.items()}
    assert kinds == {"input_1": "MSEObserver", "relu": "MinMaxObserver"}


def test_observations_are_read_by_another_kind_of_observer():
    batches = [torch.randn(64, 4) for _ in range(3)]
    sites = matched(nn.Linear(4, 2), batches[0])
    mse, extremes = Ranges(sites), Ranges(sites, observer="minmax")
    percentile = Ranges(sites, observer="percentile")
    for x in batches:
        for ranges in (mse, extremes, percentile):
            ranges.observe([x])
    (value,) = sites.observed
    for name, same in (("minmax", extremes), ("percentile", percentile)):
        assert mse.by(name).clipped([value], ACTIVATION) == same.clipped([value], ACTIVATION)
    assert extremes.by("percentile").clipped([value], ACTIVATION) == extremes.extremes([value])
    assert mse.by("minmax").macs == mse.macs
    with pytest.raises(octavo.ConfigError, match="unknown observer"):
        mse.by("max")
