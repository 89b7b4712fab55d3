import pytest
import torch
from torch import fx, nn

from octavo import DataError
from octavo.capture.export import capture
from octavo.capture.float_graph import FloatGraph, copied
from octavo.graph.tensors import set_buffer


def test_a_copy_shares_tensors_and_changes_alone():
    graph = capture(nn.Linear(4, 2), (torch.rand(3, 4),))
    copy = copied(graph)
    assert dict(copy.module.named_parameters())["weight"] is graph.module.weight
    set_buffer(copy.module, "extra", torch.zeros(1))
    copy.graph.find_nodes(op="output")[0].prepend(copy.graph.create_node("get_attr", "extra"))
    assert not hasattr(graph.module, "extra")
    assert len(copy.graph.nodes) == len(graph.graph.nodes) + 1


def test_calls_become_flat_and_outputs_the_models():
    class Pair(nn.Module):
        def forward(self, a, *, b):
            return {"sum": a + b, "both": (a, b)}

    a, b = torch.rand(2, 3), torch.rand(2, 3)
    graph = capture(Pair(), (a,), {"b": b})
    flat = graph.flatten((a,), {"b": b})
    out = graph.unflatten(graph.module(*flat))
    assert torch.equal(out["sum"], a + b) and torch.equal(out["both"][1], b)


def test_a_traced_graph_takes_its_inputs_as_they_are_or_as_one_tuple():
    x = torch.rand(2, 3)
    graph = FloatGraph(fx.symbolic_trace(nn.ReLU()), None)
    assert graph.flatten((x,), {})[0] is graph.flatten(((x,),), {})[0] is x
    assert graph.unflatten(x) is x


def test_another_call_is_refused():
    graph = capture(nn.Linear(4, 2), (torch.rand(3, 4),))
    with pytest.raises(DataError, match="batches differ"):
        graph.flatten((torch.rand(3, 5),), {})
