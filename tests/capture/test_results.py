import pytest
import torch
from torch import nn

import octavo
from octavo.capture.export import capture

OUTPUTS = {
    "none in a dict": lambda y, x: {"none": {"loss": None, "logits": y}},
    "none first": lambda y, x: (None, y),
    "number": lambda y, x: (3, y, 2.5),
    "string": lambda y, x: (y, "name"),
    "flag": lambda y, x: (True, y),
    "size": lambda y, x: (y, x.shape[0], x.shape[0] * 2),
    "only none": lambda y, x: (None, None, y.sum()),
}


class Returns(nn.Module):
    def __init__(self, output):
        super().__init__()
        self.linear, self.output = nn.Linear(8, 4), output

    def forward(self, x):
        return self.output(self.linear(x), x)


@pytest.mark.parametrize("name", OUTPUTS)
def test_other_results_than_tensors_are_in_their_places(name):
    net, x = Returns(OUTPUTS[name]).eval(), torch.rand(3, 8)
    graph, signature = capture(net, (torch.rand(2, 8),))
    outputs = graph(x)
    assert all(isinstance(o, torch.Tensor) for o in outputs)
    leaves, spec = torch.utils._pytree.tree_flatten(signature.unflatten(outputs))
    expected, expected_spec = torch.utils._pytree.tree_flatten(net(x))
    assert spec == expected_spec
    for got, e in zip(leaves, expected, strict=True):
        assert torch.allclose(got, e) if isinstance(e, torch.Tensor) else got == e


@pytest.mark.parametrize("engine", ["reference", "openvino", "onnxruntime", "torch_int8"])
@pytest.mark.parametrize("name", OUTPUTS)
def test_on_every_engine_and_from_a_file(name, engine, tmp_path):
    net, x = Returns(OUTPUTS[name]).eval(), torch.rand(3, 8)
    q = octavo.quantize(net, torch.rand(64, 8), config="fast")
    octavo.save(q, tmp_path / "m.octavo")
    expected, spec = torch.utils._pytree.tree_flatten(net(x))
    got, got_spec = torch.utils._pytree.tree_flatten(
        octavo.load(tmp_path / "m.octavo").compile(engine)(x)
    )
    assert spec == got_spec
    for e, g in zip(expected, got, strict=True):
        assert type(e) is type(g)
        if isinstance(e, torch.Tensor):
            assert e.shape == g.shape and octavo.sqnr(e, g) > 25
        else:
            assert e == g
