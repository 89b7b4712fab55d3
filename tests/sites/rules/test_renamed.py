"""Rules written for 0.1 still work, and say what to rename."""

import pytest
import torch
from torch import nn

import octavo
from octavo.graph.qparams import ACTIVATION
from stages import passed


def quantize(net, patterns):
    quantizer = octavo.Quantizer(net, patterns=octavo.DEFAULT_PATTERNS | patterns)
    quantizer.observe(torch.rand(8, 6))
    return quantizer, quantizer.quantize()


def test_a_rule_with_every_old_name():
    with pytest.warns(DeprecationWarning) as caught:

        class Old(octavo.Weighted):
            lossless = True
            idle_reason = "nobody asked"

            def wants(self, quantizer, output_wanted):
                return self.activations()

            def refuses(self, quantizer):
                return "three outputs" if self.operator.meta["val"].shape[-1] == 3 else ""

            def quantize(self, quantizer, node, load_arg):
                assert node is self.root
                return super().quantize(quantizer, node, load_arg)

    told = [str(w.message) for w in caught]
    assert len(told) == 5
    assert any("Old.wants is called quantized_inputs" in message for message in told)
    assert caught[0].filename == __file__
    assert Old.passthrough and Old.undemanded_reason == "nobody asked"
    net = nn.Sequential(nn.Linear(6, 5), nn.Softmax(1), nn.Linear(5, 3))
    quantizer, module = quantize(net, {nn.Linear: Old})
    verdicts = [site.verdict for site in quantizer.emission.sites.values()]
    assert verdicts == [
        ("int8", ""),
        ("float", "between int8 operators"),
        ("float", "three outputs"),
    ]
    x = torch.rand(4, 6)
    assert octavo.sqnr(net(x), module(x)[0]) > 30


def test_an_old_rule_may_decline():
    with pytest.warns(DeprecationWarning):

        class Declines(octavo.Weighted):
            def quantize(self, quantizer, node, load_arg):
                self.reason = "not today"
                return NotImplemented

    net = nn.Sequential(nn.Linear(6, 5))
    quantizer, module = quantize(net, {nn.Linear: Declines})
    assert list(quantizer.emission.sites.reasons.values()) == ["not today"]
    torch.testing.assert_close(module(torch.ones(2, 6))[0], net(torch.ones(2, 6)))


def test_new_names_say_nothing(recwarn):
    class New(octavo.FloatOp):
        input_spec = ACTIVATION

        def emit(self, emitter):
            return emitter.emit(self)

    assert not recwarn.list
    assert passed(nn.ReLU(), torch.rand(2, 3)) is not None


def test_a_rule_of_no_nodes_is_refused():
    with pytest.raises(IndexError):
        _ = octavo.Rule([]).root
