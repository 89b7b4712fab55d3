import pytest
import torch
from torch import fx

from octavo.graph import notes


def test_what_is_noted_travels_with_a_copy():
    graph, copy = fx.Graph(), fx.Graph()
    node = graph.placeholder("x")
    assert not notes.has_folded_batch_norm(node)
    assert notes.trained_statistics(node) is None
    assert notes.float_reason(node) == ""
    notes.note_folded_batch_norm(node, torch.zeros(3), torch.ones(3))
    notes.note_float_reason(node, "because")
    other = copy.node_copy(node)
    assert notes.has_folded_batch_norm(other)
    assert notes.trained_statistics(other)[1].sum() == 3
    assert notes.float_reason(other) == "because"


def test_only_nodes_can_be_noted_on():
    with pytest.raises(AttributeError):
        notes.note_float_reason("x", "because")
