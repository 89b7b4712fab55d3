import openvino
import pytest
import torch
from torch import nn

import octavo
from octavo.capture.export import capture
from octavo.engines.openvino.frontend import OperatorConverter, splice, symbolic_values

aten = torch.ops.aten


class Sorted(nn.Module):
    """Sorting is not in the table."""

    def __init__(self):
        super().__init__()
        self.a, self.fc = nn.Conv2d(3, 8, 3), nn.Linear(8, 5)

    def forward(self, x):
        values, order = self.fc(self.a(x).relu().mean((2, 3))).sort(-1)
        return values, order


class Unread(nn.Module):
    def forward(self, x, unread):
        return nn.functional.softplus(x, 2, 20)


class Spectrum(nn.Module):
    def forward(self, x):
        return torch.fft.fft(x).real


def converted(net, *inputs, packet):
    graph, signature = capture(net.eval(), inputs)
    converter = OperatorConverter(graph, signature)
    node = next(n for n in graph.graph.nodes if getattr(n.target, "overloadpacket", None) is packet)
    return converter, node


def test_an_operator_alone_is_converted_with_free_sizes():
    converter, node = converted(Sorted(), torch.rand(4, 3, 8, 8), packet=aten.sort)
    model = converter.convert(node)
    assert converter.is_list(node) and len(model.outputs) == 2
    assert model.get_parameters()[0].get_partial_shape()[0].is_dynamic
    x = torch.rand(7, 5)
    values, order = openvino.Core().compile_model(model, "CPU")([x.numpy()]).to_tuple()
    torch.testing.assert_close(torch.from_numpy(values), x.sort(-1)[0])
    assert torch.equal(torch.from_numpy(order), x.sort(-1)[1])


def test_it_is_spliced_into_other_models():
    converter, node = converted(Unread(), torch.randn(4, 6), torch.rand(4, 2), packet=aten.softplus)
    model = converter.convert(node)
    parameter = openvino.opset15.parameter([-1, 6], openvino.Type.f32)
    (output,) = splice(model, [openvino.opset15.add(parameter, parameter).output(0)])
    whole = openvino.Core().compile_model(openvino.Model([output], [parameter], "test"), "CPU")
    x = torch.randn(3, 6)
    got = torch.from_numpy(whole([x.numpy()]).to_tuple()[0])
    torch.testing.assert_close(got, nn.functional.softplus(2 * x, 2, 20), atol=1e-5, rtol=1e-4)


def test_what_the_frontend_does_not_know_or_gets_wrong_is_not_converted(monkeypatch):
    converter, node = converted(Spectrum(), torch.rand(2, 8), packet=aten.fft_fft)
    assert converter.convert(node) is None
    converter, node = converted(Unread(), torch.randn(4, 6), torch.rand(4, 2), packet=aten.softplus)
    monkeypatch.setattr("octavo.engines.openvino.frontend.difference", lambda *args: "numbers")
    assert converter.convert(node) is None


@pytest.mark.parametrize("net", [Sorted, Unread])
def test_such_models_run_in_openvino_alone(net):
    shapes = [(4, 3, 8, 8)] if net is Sorted else [(4, 6), (4, 2)]
    data = [tuple(torch.randn(s) for s in shapes) for _ in range(4)]
    q = octavo.quantize(net().eval(), data, config="fast")
    fast = q.compile()
    assert fast.in_pytorch == ()
    for batch in (1, 5):
        call = [torch.randn(batch, *s[1:]) for s in shapes]
        expected, got = q(*call), fast(*call)
        assert octavo.sqnr(expected, got) > 30


def test_symbolic_values_name_the_free_sizes():
    graph, signature = capture(nn.Linear(4, 2).eval(), (torch.rand(3, 4),))
    (output,) = graph.graph.output_node().args[0]
    shape = symbolic_values(graph, signature)[output].shape
    assert isinstance(shape[0], torch.SymInt) and shape[1] == 2
