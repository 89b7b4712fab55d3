import pytest
import torch
from torch import nn

from octavo.graph.names import operator_name
from octavo.passes.identity import remove_identities
from stages import passed

aten = torch.ops.aten


def operators(module):
    return [operator_name(n) for n in module.graph.nodes if n.op == "call_function"]


def test_what_does_nothing_at_inference_is_gone():
    class Idle(nn.Module):
        def forward(self, x):
            x = nn.functional.dropout(x, 0.5, self.training).contiguous().clone().detach()
            return (x + 1).view(-1)

    x = torch.rand(3, 4)
    module = passed(Idle(), x)
    assert operators(module) == ["add", "reshape"]
    assert torch.equal(module(x)[0], (x + 1).view(-1))


def test_views_of_what_was_made_contiguous():
    class Turned(nn.Module):
        def forward(self, x):
            y = x.transpose(0, 1).contiguous()
            return y.view_as(x), y.detach().view(2, 3, 2, 2)

    x = torch.rand(2, 3, 4)
    module = passed(Turned(), x)
    assert "contiguous" not in operators(module)
    for got, expected in zip(module(x), Turned()(x), strict=True):
        assert torch.equal(got, expected)


def test_an_operator_that_needs_the_layout_keeps_it():
    class Complex(nn.Module):
        def forward(self, x):
            return torch.view_as_complex(x.transpose(1, 2).contiguous().detach()).abs()

    x = torch.rand(3, 2, 4)
    module = passed(Complex(), x)
    assert operators(module)[:2] == ["transpose", "contiguous"]
    torch.testing.assert_close(module(x)[0], Complex()(x))


def test_dropout_that_the_model_asks_for_is_kept():
    class Chance(nn.Module):
        def __init__(self, train):
            super().__init__()
            self.train_ = train

        def forward(self, x):
            return nn.functional.dropout(x, 0.5, self.train_)

    x = torch.ones(4, 100)
    assert (passed(Chance(True), x)(x)[0] == 0).any()
    assert torch.equal(passed(Chance(False), x)(x)[0], x)


def test_a_copy_of_what_is_written_to_later_is_kept():
    class Copied(nn.Module):
        def forward(self, x):
            y = x * 2
            before = y.clone()
            y.view(-1).add_(1)
            return before + y

    x = torch.rand(2, 3)
    torch.testing.assert_close(passed(Copied(), x)(x)[0], 4 * x + 1)


def test_only_graphs_have_nodes():
    with pytest.raises(AttributeError):
        remove_identities(nn.Identity())


def test_empty_parts_of_a_concatenation_are_left_out():
    class Cache(nn.Module):
        def __init__(self):
            super().__init__()
            self.register_buffer("nothing", torch.empty(0))

        def forward(self, x):
            alone = torch.cat([self.nothing, x])
            return alone, torch.cat([self.nothing, x, 2 * x], 1)

    x = torch.rand(3, 4)
    module = passed(Cache(), x)
    assert operators(module) == ["mul", "cat"]
    alone, both = module(x)
    assert torch.equal(alone, x)
    assert torch.equal(both, torch.cat([x, 2 * x], 1))
