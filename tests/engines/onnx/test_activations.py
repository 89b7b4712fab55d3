import pytest
import torch
from torch import nn

import octavo
from octavo.engines.onnx.activations import reachable

aten = torch.ops.aten


def test_what_a_convolution_can_give_by_hand():
    """x in [-1, 3] with weights 2 and -1: from 2 * -1 - 3 to 2 * 3 + 1; and the bias."""
    net = nn.Sequential(nn.Conv2d(2, 1, 1), nn.SiLU(), nn.Conv2d(1, 1, 1))
    with torch.no_grad():
        net[0].weight.copy_(torch.tensor([2.0, -1.0]).view(1, 2, 1, 1))
        net[0].bias.fill_(0.5)
    x = torch.linspace(-1, 3, 64).repeat(2).view(1, 2, 8, 8)
    config = octavo.Config(observer="minmax", equalize=False, correct_biases=False, min_sqnr=0)
    q = octavo.quantize(net.eval(), x, config=config)
    conv = q.graph.find_nodes(op="call_function", target=aten.conv2d.default)[0]
    low, high = reachable(q.graph_module, conv)
    assert abs(low + 4.5) < 0.1
    assert abs(high - 7.5) < 0.1


def test_small_values_before_an_activation_are_not_rounded_to_its_whole_domain():
    """SiLU is not flat from -20 to 0, but these weights reach no further than 0.2."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 8, 1), nn.SiLU(), nn.Conv2d(8, 4, 1, bias=False))
    with torch.no_grad():
        net[0].weight.mul_(0.03)
        net[0].bias.mul_(0.03)
    q = octavo.quantize(net.eval(), [torch.randn(4, 3, 16, 16) for _ in range(4)], config="fast")
    x = torch.randn(4, 3, 16, 16)
    assert octavo.sqnr(q(x), q.compile("onnxruntime")(x)) > 30


@pytest.mark.parametrize("activation", [nn.SiLU, nn.GELU, nn.Hardswish])
@pytest.mark.parametrize("spread", [1.0, 0.1, 0.01])
def test_what_an_activation_reads_is_rounded_to_what_calibration_saw(activation, spread):
    torch.manual_seed(0)
    first, last = nn.Conv2d(16, 16, 3), nn.Conv2d(16, 8, 3, bias=False)
    net = nn.Sequential(first, activation(), last, nn.ReLU(), nn.Conv2d(8, 4, 1, bias=False)).eval()
    data = [torch.randn(4, 16, 12, 12) for _ in range(4)]
    with torch.no_grad():
        factor = spread / first(data[0]).std()
        first.weight.mul_(factor)
        first.bias.mul_(factor)
    q, x = octavo.quantize(net, data, config="fast"), torch.randn(4, 16, 12, 12)
    with torch.no_grad():
        best, found = (octavo.sqnr(net(x), y) for y in (q(x), q.compile("onnxruntime")(x)))
    assert found > best - 3
