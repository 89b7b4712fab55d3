import pytest
import torch
from torch import nn

from networks import NETWORKS, make
from octavo.capture.export import capture
from octavo.graph.names import operator_name
from stages import rewritten


def tidied(net, *args):
    module, _ = capture(net, args)
    return rewritten(module)


def operators(module):
    return [operator_name(n) for n in module.graph.nodes if n.op == "call_function"]


@pytest.mark.parametrize("name", NETWORKS)
def test_the_function_stays_the_same(name):
    net, inputs = make(name)
    args, kwargs = inputs(3)
    module, signature = capture(net, args, kwargs)
    module = rewritten(module)
    args, kwargs = inputs(5)
    got = signature.unflatten(module(*signature.flatten(args, kwargs)))
    torch.testing.assert_close(got, net(*args, **kwargs), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", NETWORKS)
def test_the_users_tensors_are_not_written_to(name):
    net, inputs = make(name)
    before = {k: v.clone() for k, v in net.state_dict().items()}
    tidied_args, tidied_kwargs = inputs(3)
    rewritten(capture(net, tidied_args, tidied_kwargs)[0])
    assert all(torch.equal(before[k], v) for k, v in net.state_dict().items())


def test_nothing_is_left_of_batch_norm_dropout_and_in_place_operators():
    for name in ("residual", "mobile", "unet", "volume"):
        net, inputs = make(name)
        found = operators(tidied(net, *inputs(2)[0]))
        assert not {"batch_norm", "dropout"} & set(found)
        assert not [f for f in found if f.endswith("_")]
    assert "mul" not in operators(tidied(make("unet")[0], torch.rand(2, 3, 16, 16)))


def test_a_graph_that_is_not_exported_is_refused():
    with pytest.raises(AttributeError):
        rewritten(nn.ReLU())


def test_nodes_named_like_methods_of_a_module():
    class Moves(nn.Module):
        def __init__(self):
            super().__init__()
            self.table, self.head = nn.Parameter(torch.randn(4, 4)), nn.Linear(4, 2)

        def forward(self, x):
            return self.head(x.to(torch.float32) @ self.table.to(torch.float64).float())

    net, x = Moves(), torch.randn(3, 4)
    torch.testing.assert_close(rewritten(capture(net, (x,))[0])(x)[0], net(x))
