import openvino
import openvino.opset15 as ov
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import octavo
from octavo import Config, SiteConfig
from octavo.engines.openvino.compiled import openvino_core
from octavo.engines.openvino.convert import build
from octavo.engines.openvino.dynamic import PROPERTY, fake_quantize_groups
from octavo.graph import ops


class Net(nn.Module):
    """Linear layers of several widths, and a convolution between them."""

    def __init__(self):
        super().__init__()
        self.up, self.down = nn.Linear(96, 160), nn.Linear(160, 64)
        self.mix, self.head = nn.Conv1d(64, 64, 3, padding=1), nn.Linear(64, 10, bias=False)

    def forward(self, x):
        x = self.down(nn.functional.gelu(self.up(x)))
        x = x + self.mix(x.transpose(1, 2)).relu().transpose(1, 2)
        return self.head(x)


def quantized(**sites):
    batches = [torch.randn(4, 9, 96), *(torch.randn(4, 5, 96) for _ in range(3))]
    return octavo.quantize(Net(), batches, config=Config(sites=sites, min_sqnr=0))


DYNAMIC = SiteConfig("dynamic", group_size=32)


@pytest.mark.parametrize(
    "sites",
    [
        {"Linear": DYNAMIC},
        {"up": DYNAMIC, "down": SiteConfig("dynamic", group_size=48)},  # one by operators
        {"up": DYNAMIC, "mix": SiteConfig("float"), "head": SiteConfig("float")},
        {"down": SiteConfig("float"), "mix": SiteConfig("float")},
        {"*": SiteConfig("float", "float"), "Linear": SiteConfig("dynamic", group_size=0)},
    ],
)
def test_it_computes_what_the_reference_does(sites):
    q = quantized(**sites)
    fast = q.compile("openvino", check=False)
    for shape in ((1, 1, 96), (3, 7, 96), (4, 20, 96)):
        x = torch.randn(shape)
        assert octavo.sqnr(q(x), fast(x)) > 60


def test_dynamic_layers_run_in_integers():
    """A layer on float inputs would agree with the float arithmetic, not with the reference."""
    q = quantized(Linear=DYNAMIC)
    x = torch.randn(4, 9, 96)
    unrounded = octavo.engines.base._Unrounded(q.graph_module).run(x)[0]
    fast = q.compile("openvino", check=False)
    assert octavo.sqnr(q(x), fast(x)) > octavo.sqnr(unrounded, fast(x)) + 20


def test_the_file_says_how_to_run_it():
    q = quantized(Linear=DYNAMIC)
    model = build(q.graph_module, q.signature)
    assert model.get_rt_info(["runtime_options", PROPERTY]).astype(str) == "32"


@settings(max_examples=20)
@given(channels=st.integers(1, 70), size=st.integers(1, 80), rank=st.integers(2, 4))
def test_rounding_by_operators(channels, size, rank):
    shape = [*[3] * (rank - 1), channels]
    x = torch.randn(shape)
    x[0] = 0
    parameter = ov.parameter(openvino.PartialShape([-1, *shape[1:]]), openvino.Type.f32)
    model = openvino.Model([fake_quantize_groups(parameter.output(0), size)], [parameter])
    hint = {"INFERENCE_PRECISION_HINT": "f32"}
    (got,) = openvino_core().compile_model(model, "CPU", hint)([x.numpy()]).values()
    expected = ops.fake_quantize_groups(x, size)
    wrong = (torch.from_numpy(got) - expected).abs() > 1e-6
    assert wrong.float().mean() < 0.02  # what lies between two integers may go either way
