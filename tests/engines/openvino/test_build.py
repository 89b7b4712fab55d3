import pytest
import torch
import torch.nn.functional as F
from torch import nn

import octavo
from networks import NETWORKS, images
from octavo.capture.export import capture
from octavo.engines.openvino.build import Builder
from octavo.engines.openvino.convert import build
from octavo.engines.openvino.table import Unsupported
from octavo.passes import run_passes


@pytest.mark.parametrize("name", NETWORKS)
def test_the_table_does_without_the_frontend(name, quantized):
    q, _ = quantized(name)
    built = Builder(q.graph_module, q.signature).build()
    assert len(built.get_parameters()) == len(q.signature.inputs)


def test_a_max_pool_after_an_int8_convolution_is_an_output_too():
    """Feature pyramids read it; made wrongly it comes out of the CPU plugin as zeros."""

    class Pyramid(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1)

        def forward(self, x):
            x = F.relu(self.a(x))
            y = F.relu(self.b(F.max_pool2d(x, 2)))
            return {"0": y, "pool": F.max_pool2d(y, 1, 2), "raw": F.max_pool2d(self.b(x), 2)}

    net = Pyramid()
    q = octavo.quantize(net, [images(4) for _ in range(4)])
    x = images(3)
    fast = q.compile()
    for key, expected in net(x).items():
        assert octavo.sqnr(expected, fast(x)[key]) > 28


def test_module_paths_are_the_nodes_names(quantized):
    q, _ = quantized("residual")
    model = build(q.graph_module, q.signature)
    names = {n.get_friendly_name() for n in model.get_ordered_ops()}
    assert any(n.startswith("conv1/") for n in names)


class Computed(nn.Module):
    """A convolution whose weight or bias the model computes."""

    def __init__(self, what):
        super().__init__()
        self.what = what
        self.weight, self.bias = nn.Parameter(torch.randn(4, 3, 3, 3)), nn.Parameter(torch.rand(4))

    def forward(self, x):
        factor = x.mean()
        weight = self.weight * (factor if self.what == "weight" else 1)
        return F.conv2d(x, weight, self.bias * (factor if self.what == "bias" else 1))


@pytest.mark.parametrize("what", ["weight", "bias"])
def test_a_convolution_with_a_computed_weight_or_bias_is_not_the_tables(what):
    graph, signature = run_passes(capture(Computed(what), (images(2),)))
    with pytest.raises(Unsupported, match=f"a {what} that the model computes"):
        Builder(graph, signature).build()


@pytest.mark.parametrize(
    "layer",
    [
        nn.Conv2d(4, 6, 3, padding="same", groups=2),
        nn.Conv1d(4, 8, 3, stride=2, padding=1, dilation=2),
        nn.ConvTranspose2d(4, 6, 3, stride=2, padding=1, output_padding=1, groups=2),
        nn.ConvTranspose1d(4, 6, 3, dilation=2, bias=False),
    ],
    ids=str,
)
def test_convolutions_of_all_settings_in_int8(layer):
    data = [torch.randn(4, 4, *[9] * (layer.weight.dim() - 2)) for _ in range(4)]
    q = octavo.quantize(layer, data, config="fast")
    built = Builder(q.graph_module, q.signature).build()
    assert "FakeQuantize" in {n.get_type_name() for n in built.get_ops()}
    assert octavo.sqnr(q(data[0]), q.compile()(data[0])) > 60


def test_an_operator_of_the_frontend_after_attention():
    """OpenVINO would end the process in moving the scale of the product with a matrix of one."""

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.attention = nn.MultiheadAttention(1, 1, batch_first=True)

        def forward(self, x):
            x = x.abs()
            y = self.attention(x, x, x)[0]
            return nn.functional.pad(y, (0, 0, 1, 1)).unfold(1, 3, 1).mean(-1)

    q = octavo.quantize(Net(), [torch.randn(4, 9, 1), torch.randn(2, 9, 1)], "fast")
    x = torch.randn(3, 9, 1)
    torch.testing.assert_close(q.compile("openvino")(x), q(x))
