import pytest
import torch
from torch import nn

import octavo
from octavo import EngineError


def test_it_is_a_module_and_holds_each_weight_once():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(256, 256), nn.ReLU(), nn.Linear(256, 4))
    config = octavo.Config(min_sqnr=0, equalize=False)
    q = octavo.quantize(net, torch.rand(8, 256), config=config)
    fast = q.compile("torch_int8")
    whole = nn.Sequential(fast, nn.Softmax(-1))
    x = torch.rand(3, 256)
    torch.testing.assert_close(whole(x), q(x).softmax(-1), atol=1e-4, rtol=1e-3)
    assert [n for n, b in fast.named_buffers() if b.dtype is torch.int8 and not b.is_mkldnn] == []
    assert q.state_dict().keys() and octavo.sqnr(q(x), fast(x)) > 60  # the model is as it was


def test_without_onednn_it_says_what_else_there_is(monkeypatch):
    q = octavo.quantize(nn.Linear(4, 2), torch.rand(8, 4))
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
    with pytest.raises(EngineError, match="compile\\('openvino'\\)"):
        q.compile("torch_int8")
