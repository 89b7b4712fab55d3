import dataclasses
import platform

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

import octavo
from octavo import Config, ConfigError
from octavo.cpu import saturates_pairs
from octavo.graph.qparams import REDUCED_WEIGHT, WEIGHT
from stages import matched


def multiply_in_pairs(x, w):
    """x (uint8) times w (int8) as vpmaddubsw does it: sums of two products saturate at 16 bits."""
    products = x.int() * w.int()
    pairs = products.view(*products.shape[:-1], -1, 2).sum(-1)
    return pairs.clamp(-(2**15), 2**15 - 1).sum(-1)


@given(st.lists(st.tuples(st.integers(0, 255), st.integers(-63, 63)), min_size=2, max_size=2))
def test_weights_of_seven_bits_never_saturate(pair):
    x, w = torch.tensor(pair).T
    assert multiply_in_pairs(x.to(torch.uint8), w.to(torch.int8)) == (x * w).sum()


def test_weights_of_eight_bits_do():
    x, w = torch.full((2,), 255, dtype=torch.uint8), torch.full((2,), 127, dtype=torch.int8)
    assert multiply_in_pairs(x, w) == 2**15 - 1 < 2 * 255 * 127


def run_in_pairs(q, x):
    """A quantized linear layer's output by the emulated instruction."""
    tensors = dict(q.named_buffers())
    (quantize,) = q.graph.find_nodes(op="call_function", target=octavo.graph.ops.quantize)
    scale, zero_point = (tensors[f"graph_module.{a.target}"] for a in quantize.args[1:3])
    xq = octavo.graph.ops.quantize(x, scale, zero_point, *quantize.args[3:6])
    w = next(t for n, t in tensors.items() if n.endswith("weight_int8"))
    w_scale = next(t for n, t in tensors.items() if n.endswith("weight_scale"))
    sums = multiply_in_pairs(xq[:, None], w[None])
    return (sums - zero_point * w.int().sum(1)) * scale * w_scale


@pytest.mark.parametrize("reduce_range", [True, False])
def test_a_layer_on_such_a_cpu(reduce_range):
    """All inputs and weights large and alike: what saturates first."""
    torch.manual_seed(0)
    net = nn.Linear(64, 8, bias=False)
    nn.init.uniform_(net.weight, 0.5, 1)
    data = 0.5 + torch.rand(64, 64) / 2
    config = Config(reduce_range=reduce_range, equalize=False, correct_biases=False)
    q = octavo.quantize(net, data, config=config)
    expected, got = q(data), run_in_pairs(q, data)
    if reduce_range:
        torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-5)
        assert octavo.sqnr(net(data), got) > 35
    else:
        assert octavo.sqnr(expected, got) < 20


@pytest.mark.parametrize("config", ["fast", "balanced", "best"])
def test_the_setting_reaches_every_weight_and_the_report(config):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(288, 4)).eval()
    x = torch.rand(32, 3, 8, 8)
    config = dataclasses.replace(octavo.config.PRESETS[config], reduce_range=True)
    q = octavo.quantize(net, x, config=config)
    weights = [t for _, t in q.named_buffers() if t.dtype is torch.int8]
    assert [int(w.abs().max()) for w in weights] == [63, 63]
    assert {r.weight_bits for r in q.report().rows if r.weight_bits} == {7}
    assert octavo.sqnr(net(x), q(x)) > 28


@pytest.mark.parametrize(
    ("machine", "known", "answer"),
    [
        ("x86_64", {"avx2": True}, True),
        ("AMD64", {"avx512_f": True}, True),
        ("x86_64", {"avx512_vnni": True}, False),
        ("x86_64", {"avx_vnni": True}, False),
        ("aarch64", {"neon": True}, False),
    ],
)
def test_which_cpus_need_it(machine, known, answer, monkeypatch):
    monkeypatch.setattr(platform, "machine", lambda: machine)
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: known)
    assert saturates_pairs() is answer
    sites = matched(nn.Linear(4, 2), torch.rand(3, 4))
    assert sites.weight_spec == (REDUCED_WEIGHT if answer else WEIGHT)


def test_other_settings_are_refused():
    with pytest.raises(ConfigError, match="choose one of 'auto', True, False"):
        Config(reduce_range="7")
