import pytest
import torch
from torch import nn

from octavo import CaptureError
from octavo.capture.export import capture
from octavo.engines.base import GraphProgram, compile_program


def test_it_runs_any_graph_as_it_is():
    net, x = nn.Linear(4, 2).eval(), torch.rand(3, 4)
    program = GraphProgram(*capture(net, (x,)))
    reference = compile_program(program, "reference")
    with torch.enable_grad():
        y = reference(x)
    assert torch.equal(y, net(x))
    assert not y.requires_grad


def test_another_call_is_refused():
    program = GraphProgram(*capture(nn.Linear(4, 2), (torch.rand(3, 4),)))
    reference = compile_program(program, "reference")
    with pytest.raises(CaptureError, match="shape"):
        reference(torch.rand(3, 5))
