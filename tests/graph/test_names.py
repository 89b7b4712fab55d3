import pytest
import torch
from torch import nn

from octavo.capture.export import capture
from octavo.graph.names import describe, full_name, module_path, operator_name, own_path, plain_path


def test_names_for_messages():
    graph, _ = capture(nn.Sequential(nn.Linear(4, 3)), (torch.rand(2, 4),))
    (linear,) = [n for n in graph.graph.nodes if n.op == "call_function"]
    assert operator_name(linear) == "linear"
    assert describe(linear) == "node 'linear' (linear) in module '0'"
    assert (module_path(linear), full_name(linear)) == ("0", "0/linear")


def test_paths_are_plain_and_none_is_taken_twice():
    assert plain_path("stage.block1-0.weight", ()) == "stage.block1_0.weight"
    assert plain_path("a/b", {"a_b"}) == "a_b_"
    assert own_path("ranges", "to", "scale") == "ranges.to_.scale"


def test_a_node_is_needed():
    with pytest.raises(AttributeError):
        operator_name("linear")
