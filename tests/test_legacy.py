"""Handlers and quants in the form of torch.fx's original quantizer."""

import copy
import operator

import pytest
import torch
from torch import fx, nn

import octavo
import original
from networks import Small
from octavo import DataError, Quantizer
from octavo.graph.qparams import choose_qparams
from stages import named, quantized


def test_handlers_of_the_original_form_run_unchanged():
    net = Small().eval()
    traced = fx.symbolic_trace(net)
    before = copy.deepcopy(traced.state_dict())
    batches = [torch.randn(2, 3, 8, 8) for _ in range(4)]
    options = {"patterns": original.PATTERNS, "quant_ctor": original.Quant}
    quantizer, module = quantized(traced, *batches, **options)
    kinds = {type(m) for m in module.modules()}
    assert torch.ao.nn.intrinsic.quantized.ConvReLU2d in kinds
    assert torch.ao.nn.quantized.Conv2d in kinds
    assert len(named(module.graph, "add")) == 1
    assert len([n for n in module.graph.nodes if n.target == "dequantize"]) == 1
    x = torch.randn(2, 3, 8, 8)
    assert octavo.sqnr(net(x), module(x)) > 20
    # the original replaced modules in the user's model
    assert type(traced.conv1) is nn.Conv2d
    assert all(torch.equal(before[k], v) for k, v in traced.state_dict().items())
    assert {n.name for n in quantizer.sites.roots} == {"conv1", "relu", "conv2", "add", "pool"}


def test_the_original_took_its_arguments_as_one_tuple():
    options = {"patterns": original.PATTERNS, "quant_ctor": original.Quant}
    quantizer = Quantizer(fx.symbolic_trace(Small().eval()), **options)
    x = torch.randn(2, 3, 8, 8)
    torch.testing.assert_close(quantizer.observe((x,)), quantizer.observe(x))


def test_a_value_that_is_no_tensor_makes_its_site_float():
    class Size(nn.Module):
        def forward(self, x):
            return x.size(0) + x.size(1), x + x * 2

    x = torch.randn(2, 3)
    options = {"patterns": {operator.add: original.Add}, "quant_ctor": original.Quant}
    quantizer, module = quantized(fx.symbolic_trace(Size()), x, **options)
    total, sums = module(x)
    assert total == 5
    torch.testing.assert_close(sums, 3 * x, atol=0.1, rtol=0.1)
    assert len(quantizer.emission.sites.reasons) == 1


def test_a_constructor_of_quants_of_ones_own():
    class Fixed(octavo.DefaultQuant):
        def qparams(self):
            return choose_qparams(-8, 8, octavo.graph.qparams.ACTIVATION)

    _, module = quantized(nn.Conv2d(3, 4, 3), torch.randn(2, 3, 8, 8), quant_ctor=Fixed)
    tensors = dict(module.named_buffers())
    (scale,) = [v for k, v in tensors.items() if k.startswith("ranges.") and k.endswith(".scale")]
    assert scale.item() == pytest.approx(16 / 255)


def test_a_user_s_handler_in_the_default_table_sees_exported_nodes():
    class Negative:
        """Of the original's form; keeps to integers by flipping them."""

        def __init__(self, quantizer, node):
            self.node = node

        def observe(self, node, env):
            self.seen = env[node.name].shape

        def quantize(self, quantizer, node, load_arg):
            return NotImplemented

    patterns = octavo.DEFAULT_PATTERNS | {torch.neg: Negative}
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten())

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = net

        def forward(self, x):
            return -self.net(x)

    x = torch.randn(2, 3, 8, 8)
    quantizer, module = quantized(Net(), x, patterns=patterns)
    (rule,) = (r for n, r in quantizer.sites.rules.items() if n.name == "neg")
    assert rule.handler.seen == (2, 144)
    assert octavo.sqnr(-net(x), module(x)[0]) > 30


def test_a_shape_the_graph_cannot_take_names_the_node():
    quantizer = Quantizer(fx.symbolic_trace(Small()), original.PATTERNS, original.Quant)
    with pytest.raises(DataError, match="'conv1'"):
        quantizer.observe(torch.randn(2, 5, 8, 8))


def test_a_handler_that_is_no_rule_is_refused_by_quantize():
    octavo.DEFAULT_PATTERNS["neg"] = original.CopyNode
    try:
        with pytest.raises(octavo.PatternError, match=r"octavo\.Quantizer"):
            octavo.quantize(nn.Sequential(nn.Linear(3, 3), Negated()), torch.rand(2, 3))
    finally:
        del octavo.DEFAULT_PATTERNS["neg"]


class Negated(nn.Module):
    def forward(self, x):
        return -x


@pytest.mark.parametrize("net", [Small, lambda: nn.Sequential(nn.Conv2d(3, 4, 1), nn.Softmax(1))])
def test_the_default_quant_chooses_as_octavo_does_without_one(net):
    model = nn.Sequential(net(), nn.Conv2d(8 if net is Small else 4, 2, 1)).eval()
    x = torch.randn(4, 3, 8, 8)
    _, plain = quantized(model, x)
    _, module = quantized(model, x, quant_ctor=octavo.DefaultQuant)
    buffers = dict(module.named_buffers())
    assert all(torch.equal(b, buffers[n]) for n, b in plain.named_buffers())
    assert [n.name for n in plain.graph.nodes] == [n.name for n in module.graph.nodes]
