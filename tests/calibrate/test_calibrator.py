import pytest
import torch
from torch import fx, nn

from octavo import DataError
from octavo.calibrate.calibrator import Calibrator
from octavo.capture.export import capture
from octavo.graph.names import describe, operator_name


def test_watchers_see_each_value_and_all_live_ones():
    graph = fx.symbolic_trace(nn.Sequential(nn.Linear(4, 3), nn.ReLU()))
    seen = {}

    def watch(node, env):
        seen[node.name] = (env[node.name].clone(), sorted(env))

    x = torch.randn(2, 4)
    out = Calibrator(graph, {"_0": [watch], "_1": [watch]}).calibrate(x)
    torch.testing.assert_close(seen["_0"][0], graph.get_submodule("0")(x))
    assert torch.equal(seen["_1"][0], out)
    assert seen["_1"][1] == ["_0", "_1"]  # the input was freed after its last use


def test_names_for_messages():
    graph, _ = capture(nn.Sequential(nn.Linear(4, 3)), (torch.rand(2, 4),))
    (linear,) = [n for n in graph.graph.nodes if n.op == "call_function"]
    assert operator_name(linear) == "linear"
    assert describe(linear) == "node 'linear' (linear) in module '0'"


def test_an_error_names_the_node_and_the_shapes():
    graph = fx.symbolic_trace(nn.Sequential(nn.Linear(4, 3)))
    with pytest.raises(DataError, match=r"'_0'.*\(2, 5\)"):
        Calibrator(graph, {}).calibrate(torch.rand(2, 5))
