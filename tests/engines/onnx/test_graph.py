from collections import Counter
from types import SimpleNamespace

import onnx
import onnxruntime
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import fx, nn
from torch.utils._pytree import tree_leaves

import octavo
from networks import NETWORKS, images
from octavo.engines.onnx.activations import ACTIVATIONS
from octavo.engines.onnx.activations import domain as find_domain
from octavo.engines.onnx.graph import to_qdq
from octavo.graph import ops
from octavo.graph.tensors import attribute

aten = torch.ops.aten


def domain(operator, low, high):
    step = (high - low) / 255
    return find_domain(SimpleNamespace(target=operator, args=(None,), kwargs={}), low, high, step)


@pytest.mark.parametrize(
    ("operator", "low", "high", "expected"),
    [
        (aten.hardswish.default, -0.375, 12.0, (-3, 12)),  # 0 from -3 down, x from 3 up
        (aten.hardsigmoid.default, 0.0, 1.0, (-3, 3)),
        (aten.leaky_relu.default, -0.05, 3.0, (-5, 3)),
        (aten.tanh.default, -0.5, 0.5, (-0.55, 0.55)),  # artanh(0.5) = 0.549
    ],
)
def test_domains_by_hand(operator, low, high, expected):
    step = (high - low) / 255
    slope = 0.01 if operator is aten.leaky_relu.default else 1
    assert domain(operator, low, high) == pytest.approx(expected, abs=step / slope + 0.05)


def test_no_domain_of_outputs_that_no_input_gives():
    assert domain(aten.sigmoid.default, 2.0, 3.0) is None


@given(
    st.sampled_from(sorted(ACTIVATIONS, key=str)),
    st.floats(-20, 0),
    st.floats(0.01, 30),
)
def test_clipping_to_the_domain_changes_no_output_by_a_step(operator, low, high):
    """Whatever input gives an output in the range gives nearly that output when clipped."""
    x = torch.linspace(low, high, 2000, dtype=torch.float64)
    y = operator(x)
    found = domain(operator, y.min().item(), y.max().item())
    step = (y.max() - y.min()).item() / 255
    if found is None or step == 0:
        return
    spacing = 0.002 * max(-low, high)  # of the domain's ends; slopes are at most 1.2
    assert (operator(x.clamp(*found)) - y).abs().max() <= step + 1.2 * spacing


def graph_of(net, data):
    q = octavo.quantize(net.eval(), data, config=octavo.Config(min_sqnr=0))
    return q, Counter(str(n.target) for n in to_qdq(q.graph_module).graph.nodes)


@pytest.mark.parametrize("activation", [nn.SiLU, nn.Hardswish])
def test_a_convolution_before_an_activation_is_rounded_twice(activation):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 8, 3), activation(), nn.Conv2d(8, 8, 3), nn.ReLU())
    net.append(nn.Flatten())
    net.append(nn.Linear(8 * 144, 4))
    q, used = graph_of(net, [images(4) for _ in range(4)])
    before = Counter(str(n.target) for n in q.graph.nodes)
    # what the activation reads, and the sigmoid in it
    assert used["octavo.quantize.default"] == before["octavo.quantize.default"] + 2
    x = images(3)
    assert octavo.sqnr(q(x), q.compile("onnxruntime")(x)) > 35


class Joined(nn.Module):
    """Two convolutions read by a float operator, a third by nobody but the caller."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.c = nn.Conv2d(3, 4, 1), nn.Conv2d(3, 4, 1), nn.Conv2d(8, 4, 1)
        self.scale = nn.Parameter(torch.ones(8, 1, 1))

    def forward(self, x):
        return self.c((torch.cat([self.a(x), self.b(x)], 1) * self.scale).relu())


def test_convolutions_before_float_operators_are_rounded_to_their_observed_range():
    torch.manual_seed(0)
    data = [images(4) for _ in range(4)]
    net = Joined().eval()
    q = octavo.quantize(
        net, data, config=octavo.Config(observer="minmax", equalize=False, correct_biases=False)
    )
    hints = q.graph.find_nodes(op="call_function", target=ops.requantize_hint)
    assert [n.args[0].args[1].args[0].target for n in hints] == ["a.weight_int8", "b.weight_int8"]
    scale = attribute(q.graph_module, hints[0].args[1].target)
    seen = torch.stack([q_range(net.a, x) for x in data])
    width = seen[:, 1].max().clamp(min=0) - seen[:, 0].min().clamp(max=0)
    assert scale.item() == pytest.approx(width.item() / 255, rel=0.02)  # of int8 inputs' outputs
    rounded = to_qdq(q.graph_module)
    before = len(q.graph.find_nodes(op="call_function", target=ops.quantize))
    after = len(rounded.graph.find_nodes(op="call_function", target=ops.quantize))
    assert after == before + 2
    x = images(3)
    assert 30 < octavo.sqnr(q(x), q.compile("onnxruntime")(x)) < 70


def q_range(layer, x):
    y = layer(x).detach()
    return torch.stack([y.min(), y.max()])


def test_the_model_itself_is_left_as_it_is():
    net = nn.Sequential(nn.Linear(4, 4), nn.SiLU(), nn.Linear(4, 2))
    q = octavo.quantize(net, torch.randn(32, 4))
    before, x = q.graph_module.code, torch.randn(3, 4)
    expected = q(x)
    to_qdq(q.graph_module)
    assert q.graph_module.code == before
    assert torch.equal(q(x), expected)


def test_a_bias_too_large_for_its_scale_stays_float():
    net = nn.Linear(4, 2)
    with torch.no_grad():
        net.weight.mul_(1e-7)
        net.bias.fill_(1e3)
    q = octavo.quantize(net, torch.randn(32, 4), config="fast")
    x = torch.randn(3, 4)
    assert octavo.sqnr(q(x), q.compile("onnxruntime")(x)) > 60


class Forced(fx.Interpreter):
    """Run a graph in PyTorch; where it rounds, another engine's integers replace its own."""

    def __init__(self, graph, integers):
        super().__init__(graph)
        self.integers, self.differences = integers, []

    def run_node(self, n):
        own = super().run_node(n)
        if n.target is not ops.quantize:
            return own
        self.differences.append((own.int() - self.integers[n.name].int()).abs())
        return self.integers[n.name]


@pytest.mark.parametrize("name", NETWORKS)
def test_every_operator_in_onnx_runtime_is_within_a_step_of_pytorchs(name, quantized, tmp_path):
    """On the same integers, so that no step travels from one operator to the next."""
    q, make_inputs = quantized(name)
    path, graph = tmp_path / "m.onnx", to_qdq(q.graph_module)
    octavo.export(q, path)
    model = onnx.load(path)
    outputs = [o.name for o in model.graph.output]
    rounded = [n.output[0] for n in model.graph.node if n.op_type == "QuantizeLinear"]
    for value in rounded:
        info = onnx.helper.make_tensor_value_info(value, onnx.TensorProto.UINT8, None)
        model.graph.output.append(info)
    session = onnxruntime.InferenceSession(model.SerializeToString())

    inputs = tree_leaves(make_inputs(3))
    feeds = {i.name: t.numpy() for i, t in zip(session.get_inputs(), inputs, strict=True)}
    results = [torch.from_numpy(r) for r in session.run(outputs + rounded, feeds)]
    rounding = [n.name for n in graph.graph.find_nodes(op="call_function", target=ops.quantize)]
    forced = Forced(graph, dict(zip(rounding, results[len(outputs) :], strict=True)))
    with torch.no_grad():
        expected = tree_leaves(forced.run(*inputs))

    differences = torch.cat([d.flatten() for d in forced.differences])
    assert differences.max() <= 1
    assert (differences > 0).float().mean() < 0.01  # of values halfway between two integers
    for e, r in zip(expected, results, strict=False):
        torch.testing.assert_close(r, e, rtol=1e-4, atol=1e-4)


class Split(nn.Module):
    """A split of what several operators, a constant or a number make in float."""

    def __init__(self, kind):
        super().__init__()
        self.kind, self.a, self.b = kind, nn.Linear(8, 16), nn.Linear(8, 16)

    def forward(self, x):
        a, b = self.a(x), self.b(x)
        y = {
            "cat": lambda: torch.cat([a, b], 1).softmax(1),
            "stack": lambda: torch.stack([a, b], 1).softmax(1).flatten(1),
            "where": lambda: torch.where(a > 0, a, b),
            "full": lambda: torch.full((x.shape[0], 16), 2.0).exp(),
            "division": lambda: 1.0 / a.exp(),
            "integers": lambda: a,
        }[self.kind]()
        p, q = y.chunk(2, 1)
        return self.a(p[:, :8]) * q[:, :1] if self.kind == "integers" else p * q


@pytest.mark.parametrize("kind", ["cat", "stack", "where", "full", "division", "integers"])
def test_a_split_of_anything(kind):
    torch.manual_seed(0)
    q = octavo.quantize(Split(kind).eval(), torch.randn(16, 8), config="fast")
    x = torch.randn(3, 8)
    assert octavo.sqnr(q(x), q.compile("onnxruntime")(x)) > 50


class Chosen(nn.Module):
    """A convolution whose output is compared, in float, before the next one reads it."""

    def __init__(self, kind):
        super().__init__()
        self.kind, self.a, self.b = kind, nn.Conv2d(3, 4, 1), nn.Conv2d(4, 4, 1)

    def forward(self, x):
        y = self.a(x)
        if self.kind == "compared":
            y = y * (y.sigmoid() > 0.5)
        if self.kind == "sorted":
            y = y.sort(1)[0]
        return self.b(y.softmax(1))


@pytest.mark.parametrize(("kind", "rounded"), [("compared", 0), ("sorted", 1), ("plain", 1)])
def test_what_is_compared_is_not_rounded(kind, rounded):
    torch.manual_seed(0)
    q = octavo.quantize(Chosen(kind).eval(), torch.randn(8, 3, 6, 6), config="fast")
    assert len(q.graph.find_nodes(op="call_function", target=ops.requantize_hint)) == 1
    before, after = (
        len(g.graph.find_nodes(op="call_function", target=ops.quantize))
        for g in (q.graph_module, to_qdq(q.graph_module))
    )
    assert after == before + rounded
