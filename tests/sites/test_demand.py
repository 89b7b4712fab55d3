import pytest
import torch
from torch import nn

from octavo.graph.qparams import ACTIVATION
from octavo.sites.demand import find_demand
from stages import matched


class Joined(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b, self.c = nn.Conv2d(3, 4, 1), nn.Conv2d(3, 4, 1), nn.Conv2d(8, 2, 1)

    def forward(self, x):
        return self.c(torch.cat([self.a(x), self.b(x).relu()], 1))


def test_values_that_are_joined_are_one_group():
    demand = matched(Joined(), torch.rand(2, 3, 5, 5)).demand
    groups = {n.name: demand.group_of(n).name for n in demand.specs}
    assert groups["conv2d"] == groups["relu"] == groups["cat"] != groups["x"]


def test_the_output_is_not_read_as_integers():
    demand = matched(nn.Conv2d(3, 4, 1), torch.rand(2, 3, 5, 5)).demand
    assert {n.name: s for n, s in demand.specs.items()} == {"input_1": ACTIVATION}


def test_with_every_site_float_nothing_is_asked_for():
    sites = matched(Joined(), torch.rand(2, 3, 5, 5))
    demand = find_demand(sites.context, dict.fromkeys(sites, "float"))
    assert not (demand.specs or demand.inputs or demand.parents or demand.hints)


def test_a_convolution_before_float_operators_before_integers_is_a_hint():
    net = nn.Sequential(nn.Conv2d(3, 4, 1), nn.Softmax(1), nn.Conv2d(4, 2, 1))
    demand = matched(net, torch.rand(2, 3, 5, 5)).demand
    assert {n.name for n in demand.hints} == {"conv2d"}
    last = matched(nn.Sequential(nn.Conv2d(3, 4, 1), nn.Softmax(1)), torch.rand(2, 3, 5, 5))
    assert not last.demand.hints


def test_a_group_of_something_that_is_no_node_is_itself():
    demand = matched(Joined(), torch.rand(2, 3, 5, 5)).demand
    with pytest.raises(TypeError):
        demand.group_of(["conv2d"])


@pytest.mark.parametrize(("activation", "expected"), [(nn.SiLU(), {"conv2d"}), (nn.ReLU6(), set())])
def test_what_an_activation_that_does_not_clip_reads_is_a_hint(activation, expected):
    net = nn.Sequential(nn.Conv2d(3, 4, 1), activation, nn.Conv2d(4, 2, 1))
    demand = matched(net, torch.rand(2, 3, 5, 5)).demand
    assert {n.name for n in demand.hints} == expected
