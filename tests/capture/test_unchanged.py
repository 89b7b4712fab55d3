import collections
import functools

import pytest
import torch
from torch import nn

import octavo
from octavo.capture.unchanged import unchanged

TABLES: dict = {}


@functools.lru_cache
def table(n):
    return torch.arange(float(n))


class Remembers(nn.Module):
    """Keeps something of each call, in every way that models do."""

    shared: dict = {}

    def __init__(self):
        super().__init__()
        self.linear, self.made, self.calls = nn.Linear(4, 4), None, 0
        self.cache, self.outputs, self.recent = {}, [], collections.deque(maxlen=2)
        self.seen, self.own = set(), collections.OrderedDict(a=[])
        self.plain = torch.zeros(3)
        self.register_buffer("count", torch.zeros(2))

    def forward(self, x):
        self.calls += 1
        if self.made is None:
            self.made = torch.ones(4)
        if not hasattr(self, "late"):
            self.late = torch.ones(4)
        if "lazy" not in self._buffers:
            self.register_buffer("lazy", torch.ones(4))
        self.cache[x.shape[1]] = self.made
        self.outputs.append(x)
        self.recent.append(x)
        self.seen.add("called")
        self.own["a"].append(x)
        self.shared["x"] = x
        TABLES["x"] = x
        return self.linear(x) * self.made + self.late + self.lazy + table(4)


def state(net):
    """All that can be reached, as identities and numbers."""
    found = {name: id(value) for name, value in vars(net).items()}
    found |= {f"in {k}": list(map(str, v)) for k, v in vars(net).items() if hasattr(v, "__len__")}
    found |= {"own": list(net.own["a"]), "shared": dict(net.shared), "tables": dict(TABLES)}
    found |= {"training": [m.training for m in net.modules()], "calls": net.calls}
    found |= {"buffers": [*net._buffers], "hooks": dict(net._forward_hooks)}
    return found | {f"value of {k}": v.tolist() for k, v in net.state_dict().items()}


def test_whatever_forward_keeps_is_undone():
    net, x = Remembers(), torch.rand(2, 4)
    collected = []
    net.linear.register_forward_hook(lambda module, args, output: collected.append(output))
    net.linear.weight.requires_grad_(False)
    before = state(net)
    with unchanged(net):
        assert not net.training and not net.linear.training
        net(x)
        net.count += 1
        net.plain.add_(1)
        assert collected and net.calls == 1
    assert state(net) == before and not collected
    assert net.plain.tolist() == [0, 0, 0] and net.training
    assert table.cache_info().currsize == 0


def test_an_error_undoes_it_too():
    net = Remembers()
    before = state(net)
    with pytest.raises(RuntimeError), unchanged(net):
        net(torch.rand(2, 5))
    assert state(net) == before


def test_what_was_there_stays():
    net, x = Remembers(), torch.rand(2, 4)
    net.eval()
    net(x)
    before, outputs = state(net), list(net.outputs)
    with unchanged(net):
        net(x)
    assert state(net) == before
    assert len(net.outputs) == 1 and net.outputs[0] is outputs[0]
    net.shared.clear()
    TABLES.clear()
    table.cache_clear()


@pytest.mark.parametrize("config", ["fast", "balanced"])
def test_quantizing_leaves_all_of_a_model_as_it_was(config):
    net, x = Remembers(), [torch.rand(4, 4) for _ in range(4)]
    before = state(net)
    q = octavo.quantize(net, x, config=config)
    assert state(net) == before
    q(x[0])
    assert state(net) == before
    net(x[0])  # and it still runs
    assert type(net.late) is torch.Tensor
    net.shared.clear()
    TABLES.clear()
    table.cache_clear()


class Made(collections.OrderedDict):
    """Makes a new object at each look, as a table of activations by name does."""

    def __getitem__(self, key):
        return super().__getitem__(key)()

    def items(self):
        raise NotImplementedError


def test_containers_that_are_not_what_they_seem():
    net = nn.Linear(2, 2)
    net.made, net.counts = Made(relu=nn.ReLU), collections.Counter(a=2)
    with unchanged(net):
        pass
    with unchanged(net):
        net.made["gelu"] = nn.GELU
        net.counts["b"] += 1
    assert [*net.made] == ["relu"] and isinstance(net.made["relu"], nn.ReLU)
    assert net.counts == {"a": 2}
