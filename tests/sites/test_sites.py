import dataclasses

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from octavo import ConfigError
from octavo.graph.qparams import ACTIVATION, SYMMETRIC_ACTIVATION
from stages import matched


class Residual(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1)
        self.c = nn.Conv2d(4, 2, 1)

    def forward(self, x):
        x = F.relu(self.a(x))
        return self.c(F.max_pool2d(x + self.b(x), 2))


def sites_of(net=None, **settings):
    return matched(net or Residual(), torch.rand(2, 3, 8, 8), **settings)


def by_name(sites):
    return {site.rule.operator.name: site for site in sites.values()}


def test_sites_are_numbered_in_graph_order_and_say_what_they_read():
    sites = sites_of()
    assert [site.number for site in sites.values()] == list(range(len(sites)))
    found = by_name(sites)
    assert [n.name for n in found["add"].int8_inputs] == ["relu", "conv2d_1"]
    assert found["add"].fused_input.name == "conv2d_1"
    assert found["max_pool2d"].moves_integers
    assert all(site.verdict == ("int8", "") for site in found.values())


def test_what_moves_integers_has_no_range_of_its_own_and_shares_its_inputs_scale():
    sites = sites_of()
    assert [n.name for n in sites.observed] == ["x", "relu", "conv2d_1", "add"]
    pool = by_name(sites)["max_pool2d"].root
    assert sites.demand.group_of(pool).name == "add"


def test_with_float_is_a_new_one_and_demand_follows():
    sites = sites_of()
    last = by_name(sites)["conv2d_2"].root
    other = sites.with_float({last: "for a test"})
    assert sites[last].verdict == ("int8", "")
    assert other[last].verdict == ("float", "for a test")
    # nobody reads the sum as integers now, so nothing before it is rounded for it
    assert by_name(other)["add"].verdict == ("float", "not between convolutions")
    assert by_name(other)["max_pool2d"].verdict == ("float", "no int8 operator reads its output")
    again = other.with_float({by_name(sites)["conv2d"].root: "as well"})
    assert again[last].verdict == ("float", "for a test")
    with pytest.raises(dataclasses.FrozenInstanceError):
        sites.reasons = {}


def test_questions_change_nothing():
    sites = sites_of()
    before = [contents(site) for site in sites.values()]
    for site in sites.values():
        _ = site.verdict, site.moves_integers, sites.verdict(site.root), sites.groups
        _ = sites.with_float({site.root: "asked"}).observed
    assert [contents(site) for site in sites.values()] == before


def contents(site):
    return site.number, site.int8_inputs, site.fused_input, site.fallback_reason, site.rule.nodes


def test_products_read_symmetric_integers_unless_others_read_them_too():
    class Products(nn.Module):
        def __init__(self):
            super().__init__()
            self.q, self.k = nn.Linear(8, 8), nn.Linear(8, 8)

        def forward(self, x):
            return self.q(x) @ self.k(x).transpose(1, 2)

    sites = matched(Products(), torch.rand(2, 5, 8))
    specs = {n.name: sites.demand.spec_of(n) for n in sites.demand.specs}
    assert specs == {
        "x": ACTIVATION,
        "linear": SYMMETRIC_ACTIVATION,
        "linear_1": SYMMETRIC_ACTIVATION,
        "transpose": SYMMETRIC_ACTIVATION,
    }
    assert {n.name for n in sites.demand.may_be_signed} == set(specs)  # only products read them


def test_a_setting_that_names_nothing_is_refused():
    with pytest.raises(ConfigError, match="matches no site"):
        sites_of(keep_float=["tail"])
