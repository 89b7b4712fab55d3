import pytest
from torch import nn

from octavo.capture.export import capture
from octavo.engines.base import GraphProgram, compile_program


class Calling(nn.Module):
    """A function of tensors as a module, with the layers that it calls."""

    def __init__(self, function, *layers):
        super().__init__()
        self.function, self.layers = function, nn.ModuleList(layers)

    def forward(self, *inputs):
        return self.function(*self.layers, *inputs)


@pytest.fixture
def in_onnx_runtime():
    """A function in float, in PyTorch and in ONNX Runtime; sizes that differ in `calls` are free.

    Called with tensors of a call or tuples of them; layers come first among the arguments.
    """

    def compiled(function, *calls, layers=()):
        net = Calling(function, *layers).eval()
        first, *others = (call if isinstance(call, tuple) else (call,) for call in calls)
        graph = capture(net, first, {}, [(other, {}) for other in others])
        return net, compile_program(GraphProgram(graph.module, graph.signature), "onnxruntime")

    return compiled
