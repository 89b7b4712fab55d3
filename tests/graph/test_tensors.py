import pytest
import torch
from torch import fx, nn

from octavo.graph.names import plain_path
from octavo.graph.tensors import attribute, drop_unread, new_attribute, set_buffer


def test_by_dotted_path():
    root = nn.Module()
    set_buffer(root, "layer1.0.weight", torch.ones(2))
    assert torch.equal(attribute(root, "layer1.0.weight"), torch.ones(2))
    assert list(dict(root.named_buffers())) == ["layer1.0.weight"]


def test_a_node_for_a_new_tensor():
    module = fx.GraphModule(nn.Module(), fx.Graph())
    node = new_attribute(module, "a.b", torch.ones(2))
    module.graph.output(node)
    module.recompile()
    assert torch.equal(module(), torch.ones(2))
    assert node.meta["val"].shape == (2,)


@pytest.mark.parametrize("path", ["__class__.x", "forward.x", "training"])
def test_names_the_module_itself_has_are_refused(path):
    with pytest.raises(KeyError, match="exists"):
        set_buffer(nn.Module(), path, torch.ones(1))


def test_a_path_that_is_not_there_is_an_error():
    with pytest.raises(AttributeError):
        attribute(nn.Linear(2, 2), "weight.nothing")


def test_what_is_not_read_is_dropped():
    module = fx.GraphModule(nn.Module(), fx.Graph())
    module.graph.output(new_attribute(module, "a.read", torch.ones(2)))
    for path in ("a.unread", "b.c.unread"):
        set_buffer(module, path, torch.ones(2))
    drop_unread(module)
    assert list(dict(module.named_buffers())) == ["a.read"]


def test_a_plain_path_is_new():
    assert plain_path("a.b-0", ()) == "a.b_0"
    assert plain_path("a.b-0", {"a.b_0", "a.b_0_"}) == "a.b_0__"
    assert plain_path("0.weight_int8", ()) == "0.weight_int8"
