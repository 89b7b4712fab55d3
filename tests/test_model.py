import copy
import pickle

import pytest
import torch
from torch import nn

import octavo
from networks import NETWORKS, calls, images, make
from octavo import CaptureError


def quantized(name):
    net, inputs = make(name)
    return octavo.quantize(net, calls(inputs), config=octavo.Config(min_sqnr=0)), inputs


@pytest.fixture
def residual():
    return quantized("residual")[0]


def test_integers_are_plain_tensors(residual):
    kinds = {t.dtype for t in residual.state_dict().values()}
    assert kinds == {torch.int8, torch.int32, torch.float32}
    x = images(2)
    seen = set()
    for node in residual.graph.nodes:
        if node.target is octavo.graph.ops.quantize:
            seen.add(node.args[5])
    assert seen == {torch.uint8}
    assert residual(x).dtype == torch.float32


@pytest.mark.parametrize("name", NETWORKS)
def test_it_can_be_exported(name):
    q, inputs = quantized(name)
    args, kwargs = inputs(2)
    exported = torch.export.export(q, args, kwargs).module()
    torch.testing.assert_close(exported(*args, **kwargs), q(*args, **kwargs), rtol=0, atol=0)


def test_to_dtype_moves_scales_and_keeps_integers(residual):
    x = images(2)
    expected = residual(x)
    double = residual.to(torch.float64)
    assert double(x.double()).dtype == torch.float64
    assert octavo.sqnr(expected.double(), double(x.double())) > 35
    assert {t.dtype for t in double.state_dict().values()} == {
        torch.int8,
        torch.int32,
        torch.float64,
    }


def test_to_device_moves_the_tensors_the_graph_makes():
    class Makes(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(4, 4)

        def forward(self, x):
            return self.fc(x) + torch.arange(x.shape[0], device=x.device).unsqueeze(1)

    q = octavo.quantize(Makes(), torch.rand(8, 4)).to("meta")
    assert q(torch.rand(3, 4, device="meta")).device.type == "meta"


def test_no_gradients_are_needed(residual):
    with torch.enable_grad():
        assert not residual(images(2)).requires_grad


def test_it_is_part_of_a_larger_model(residual):
    larger = nn.Sequential(residual, nn.Linear(5, 2))
    assert larger(images(3)).shape == (3, 2)
    assert any(k.startswith("0.graph_module.") for k in larger.state_dict())


def test_a_call_of_another_structure_is_refused(residual):
    with pytest.raises(CaptureError, match="cannot be called like this"):
        residual(images(2), images(2))
    with pytest.raises(CaptureError, match="shape"):
        residual(images(2)[0])


@pytest.mark.parametrize("how", [copy.deepcopy, lambda q: pickle.loads(pickle.dumps(q))])
@pytest.mark.parametrize("name", NETWORKS)
def test_copies_are_the_same_model(name, how):
    q, inputs = quantized(name)
    copied, (args, kwargs) = how(q), inputs(3)
    torch.testing.assert_close(copied(*args, **kwargs), q(*args, **kwargs), rtol=0, atol=0)
    assert [n.name for n in copied.graph.nodes] == [n.name for n in q.graph.nodes]
    assert copied.report() == q.report() and copied.config == q.config


def test_what_a_file_cannot_hold_is_pickled_as_pytorch_does(residual, monkeypatch):
    def refuse(*args, **kwargs):
        raise octavo.FormatError("an operator of your own")

    monkeypatch.setattr(octavo.io.file, "contents", refuse)
    x = images(2)
    torch.testing.assert_close(pickle.loads(pickle.dumps(residual))(x), residual(x))


def test_it_prints_in_a_line(residual):
    rows = residual.report().rows
    count = sum(r.precision == "int8" for r in rows)
    assert repr(residual).startswith(f"QuantizedModel({count} of {len(rows)} operators int8, ")


def test_a_state_dict_makes_another_model_the_same(residual):
    other, x = copy.deepcopy(residual), images(2)
    for buffer in other.buffers():
        buffer.zero_()
    other.load_state_dict(residual.state_dict())
    assert torch.equal(other(x), residual(x))
