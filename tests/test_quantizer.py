"""One test per idea of the quantizer that Octavo grew from, and per flaw that must not return."""

import pytest
import torch
import torch.nn.functional as F
from torch import fx, nn

import octavo
from networks import NETWORKS, Small, images, make
from octavo import ConversionError, DataError, Quantizer
from octavo.calibrate.observers import MinMaxObserver
from octavo.graph import ops
from octavo.graph.names import operator_name
from octavo.graph.qparams import choose_qparams
from octavo.sites.rules.conv import Conv
from stages import named, quantized


def test_a_fake_resnet_end_to_end():
    """The original's own test: few random images, all convolutions int8, close to float."""
    torchvision = pytest.importorskip("torchvision")
    net = torchvision.models.resnet18().eval()
    batches = [torch.rand(1, 3, 224, 224) for _ in range(10)]
    quantizer, module = quantized(fx.symbolic_trace(net), *batches)
    module.graph.lint()
    x = torch.rand(1, 3, 224, 224)
    expected = net(x)
    assert (module(x)[0] - expected).abs().max() < 2
    assert octavo.sqnr(expected, module(x)[0]) > 20
    weights = {n.args[1].args[0].target for n in named(module.graph, "conv2d")}
    tensors = dict(module.named_buffers())
    assert len(weights) == 20
    assert all(tensors[w].dtype == torch.int8 for w in weights)
    again = torch.export.export(module, (x,)).module()
    assert torch.equal(again(x)[0], module(x)[0])
    assert quantizer.emission.sites.reasons == {}


@pytest.mark.parametrize("form", ["plain", "traced"])
def test_plain_modules_and_traced_ones(form):
    net = Small().eval()
    x = torch.randn(2, 3, 8, 8)
    _, module = quantized(net if form == "plain" else fx.symbolic_trace(net), x)
    assert octavo.sqnr(net(x), module(x)[0]) > 25


def test_range_to_scale_and_zero_point():
    observer = MinMaxObserver()
    observer.observe(torch.tensor([-1.0, 0.5]))
    observer.observe(torch.tensor([2.0]))
    p = observer.qparams(octavo.graph.qparams.ACTIVATION)
    assert (p.spec.qmin, p.spec.qmax) == (0, 255)
    assert (p.scale.item(), p.zero_point.item()) == (pytest.approx(3 / 255), 85)
    assert choose_qparams(0, 0, octavo.graph.qparams.ACTIVATION).scale == 1


def test_weights_have_a_scale_per_channel_within_127():
    _, module = quantized(Small().eval(), torch.randn(2, 3, 8, 8))
    tensors = dict(module.named_buffers())
    assert tensors["conv1.weight_scale"].shape == (8,)
    assert tensors["conv1.weight_int8"].abs().amax((1, 2, 3)).eq(127).all()
    assert tensors["conv1.weight_int8"].min() >= -127


def test_not_implemented_copies_what_the_match_covers():
    class Declines(octavo.Weighted):
        def emit(self, emitter):
            self.reason = "not today"
            return NotImplemented

    patterns = {(nn.ReLU, nn.Conv2d): Declines, nn.Conv2d: Conv}
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 2, 3)).eval()
    x = torch.randn(2, 3, 8, 8)
    quantizer, module = quantized(net, x, patterns=patterns)
    assert len(named(module.graph, "relu")) == 1
    assert len(named(module.graph, "conv2d")) == 2
    assert list(quantizer.emission.sites.reasons.values()) == ["not today"]
    assert "0.weight" in dict(module.named_buffers())
    assert dict(module.named_buffers())["0.weight"].dtype == torch.float32
    assert octavo.sqnr(net(x), module(x)[0]) > 30


def test_each_value_is_converted_at_most_once_each_way():
    class Readers(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Conv2d(3, 4, 1), nn.Conv2d(3, 4, 1)

        def forward(self, x):
            y = torch.tanh(x)
            return self.a(y), self.b(y), y.exp()

    x = torch.randn(2, 3, 4, 4)
    _, module = quantized(Readers(), x)
    activations = [n for n in module.graph.nodes if n.target is ops.quantize]
    read = [
        n for n in module.graph.nodes if n.target is ops.dequantize and n.args[0] in activations
    ]
    assert len(activations) == len(read) == 1
    torch.testing.assert_close(module(x)[2], torch.tanh(x).exp())


def test_nobody_wants_the_last_output_as_integers():
    _, module = quantized(Small().eval(), torch.randn(2, 3, 8, 8))
    output = next(n for n in module.graph.nodes if n.op == "output").args[0][0]
    assert operator_name(output) == "tanh"


def test_relu_and_pool_pass_integers_through():
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(4, 4, 3))
    x = torch.randn(2, 3, 12, 12)
    _, module = quantized(net, x)
    pool = named(module.graph, "max_pool2d")[0]
    before, after = pool.args[0], next(iter(pool.users))
    assert before.target is ops.dequantize
    assert after.target is ops.quantize
    assert before.args[1:3] == after.args[1:3]


def test_a_module_called_twice_is_two_sites_with_one_weight():
    conv = nn.Conv2d(3, 3, 1)
    net = nn.Sequential(conv, nn.Tanh(), conv)
    x = 5 * torch.randn(2, 3, 8, 8)
    quantizer, module = quantized(net, x)
    convs = named(module.graph, "conv2d")
    assert len(convs) == 2
    assert convs[0].args[1] is convs[1].args[1]
    emission = quantizer.emission
    reads = [site.int8_inputs for site in emission.sites.values() if site.int8_inputs]
    ranges = [emission.qparams[inputs[0]].range for inputs in reads]
    assert ranges[0] != ranges[1]


def test_values_joined_by_cat_share_one_scale():
    class Joined(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b, self.c = nn.Conv2d(3, 4, 1), nn.Conv2d(3, 4, 1), nn.Conv2d(8, 2, 1)

        def forward(self, x):
            return self.c(torch.cat([self.a(x), 10 * self.b(x).relu()], 1))

    net, x = Joined(), torch.randn(2, 3, 4, 4)
    quantizer, module = quantized(net, x)
    cat = named(module.graph, "cat")[0]
    scales = {n.args[1] for n in cat.args[0]}
    assert len(scales) == 1
    low, high = next(p for n, p in quantizer.emission.qparams.items() if n.name == "cat").range
    joined = torch.cat([net.a(x), 10 * net.b(x).relu()], 1)
    assert low == pytest.approx(joined.min().item(), abs=2 * (high - low) / 255)
    assert high == pytest.approx(joined.max().item(), abs=2 * (high - low) / 255)


def test_observing_more_then_converting_again():
    net = nn.Conv2d(3, 4, 3)
    quantizer = Quantizer(net)
    quantizer.observe(torch.randn(2, 3, 8, 8))
    first = dict(quantizer.quantize().named_buffers())
    quantizer.observe(10 * torch.randn(2, 3, 8, 8))
    second = dict(quantizer.quantize().named_buffers())
    scale = next(k for k in first if k.endswith(".scale"))
    assert second[scale] > 2 * first[scale]


@pytest.mark.parametrize("name", NETWORKS)
def test_the_model_is_never_changed(name):
    net, inputs = make(name)
    net.train()
    before = {k: v.clone() for k, v in net.state_dict().items()}
    args, kwargs = inputs(3)
    quantizer = Quantizer(net)
    quantizer.observe(*args, **kwargs)
    quantizer.quantize()
    assert net.training
    assert all(torch.equal(before[k], v) for k, v in net.state_dict().items())


def test_quantize_before_observe_is_refused():
    with pytest.raises(DataError, match="observe"):
        Quantizer(nn.Linear(2, 2)).quantize()


def test_batches_of_another_shape_are_refused():
    quantizer = Quantizer(nn.Conv2d(3, 4, 3))
    quantizer.observe(images(2))
    with pytest.raises(DataError, match="batches differ"):
        quantizer.observe(images(2, channels=4))


def test_weights_that_are_infinite_are_refused():
    net = nn.Sequential(nn.Linear(3, 3), nn.Tanh())
    net[0].weight[0, 0] = float("inf")
    with pytest.raises(ConversionError, match=r"'0\.weight' holds NaN or infinity"):
        quantized(net, torch.rand(2, 3))


def test_values_that_become_infinite_name_their_node():
    class Overflow(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(3, 3)

        def forward(self, x):
            return F.relu(self.fc(x / 0.0))

    with pytest.raises(DataError, match=r"'div' \(div\).*infinity"):
        quantized(Overflow(), torch.rand(2, 3) + 1)


class Picky(octavo.Weighted):
    """int8, but declines what has 24 outputs when it is to be emitted."""

    signed_input = True

    def emit(self, emitter):
        if self.operator.meta["val"].shape[-1] == 24:
            self.reason = "declined late"
            return NotImplemented
        return super().emit(emitter)


def picky_patterns():
    linear = octavo.sites.rules.linear.Linear
    return {p: Picky if rule is linear else rule for p, rule in octavo.DEFAULT_PATTERNS.items()}


def chain():
    layers = (nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 24), nn.ReLU(), nn.Linear(24, 8))
    return nn.Sequential(*layers).eval()


def contents(module):
    """Everything a graph is: its operators, their arguments, its tensors."""
    nodes = [(n.name, n.op, str(n.target), str(n.args), str(n.kwargs)) for n in module.graph.nodes]
    return nodes, {name: b.tolist() for name, b in module.named_buffers()}


def test_a_rule_that_declines_late_gives_the_same_graph_each_time():
    net, data = chain(), [torch.randn(16, 16) for _ in range(8)]
    quantizer, first = quantized(net, *data, patterns=picky_patterns())
    found = [contents(first)]
    for _ in range(2):
        found.append(contents(quantizer.quantize()))
    assert found[0] == found[1] == found[2]
    # nobody rounds for a layer that is float
    assert len([n for n in first.graph.nodes if n.target is ops.quantize]) == 2
    sites = quantizer.emission.sites
    assert [sites.verdict(root) for root in sites] == [
        ("int8", ""),
        ("float", "declined late"),
        ("int8", ""),
    ]
    assert octavo.sqnr(net(data[0]), first(data[0])[0]) > 35


def test_tuning_compares_the_same_sites_before_and_after(monkeypatch):
    """The graph that is tuned and the plain one it is measured against read the same integers."""
    for pattern, rule in picky_patterns().items():
        monkeypatch.setitem(octavo.DEFAULT_PATTERNS, pattern, rule)
    net, data = chain(), [torch.randn(16, 16) for _ in range(8)]
    config = octavo.Config(equalize=False, round_weights=False)
    q = octavo.quantize(net, data, config=config)
    plain = octavo.quantize(net, data, config="fast")
    rows = [(r.name, r.precision, r.reason) for r in q.report().rows]
    assert rows == [(r.name, r.precision, r.reason) for r in plain.report().rows]
    assert ("relu_1", "float", "declined late") in rows
    (step,) = q.report().steps
    assert step.kept == (step.after >= step.before)


def test_a_rule_in_the_middle_of_a_shared_scale_may_decline():
    """What it would have moved was not observed by itself: its range is that of its source."""

    class Stays(octavo.PassThrough):
        on_integers = False

        def emit(self, emitter):
            return NotImplemented

    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.MaxPool2d(2), nn.Conv2d(4, 2, 1)).eval()
    patterns = octavo.DEFAULT_PATTERNS | {nn.MaxPool2d: Stays}
    x = torch.randn(4, 3, 9, 9)
    quantizer, module = quantized(net, x, patterns=patterns)
    (pool,) = named(module.graph, "max_pool2d")
    assert pool.args[0].target is not ops.dequantize
    assert octavo.sqnr(net(x), module(x)[0]) > 30
    assert contents(module) == contents(quantizer.quantize())


def test_observing_in_another_order_gives_the_same_graph():
    net, data = chain(), [torch.randn(16, 16) for _ in range(4)]
    _, one = quantized(net, *data)
    _, other = quantized(net, *data[::-1])
    assert contents(one) == contents(other)
