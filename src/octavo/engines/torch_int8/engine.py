"""The torch_int8 engine: PyTorch's own oneDNN kernels on plain uint8 / int8 tensors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, fx, nn

from ...capture.signature import Signature
from ...errors import EngineError
from ..base import EngineModel, Program, register_engine
from .lowering import lower


@register_engine("torch_int8")
def torch_int8(model: Program) -> TorchInt8:
    """An nn.Module of PyTorch's own int8 kernels: no second runtime; on x86 CPUs.

    It is called like the model, works inside a larger PyTorch program and under
    `torch.inference_mode`, and has no gradients.
    """
    if not (torch.backends.mkldnn.is_available() and hasattr(torch.ops.onednn, "qconv_prepack")):
        raise EngineError(
            "the engine 'torch_int8' needs a PyTorch built with oneDNN: use compile('openvino')"
        )
    return TorchInt8(lower(model.graph_module, model.signature), model.signature)


class TorchInt8(nn.Module, EngineModel):  # type: ignore[misc]  # nn.Module.to has overloads
    """The lowered graph, called like the model."""

    def __init__(self, graph_module: fx.GraphModule, signature: Signature) -> None:
        nn.Module.__init__(self)
        EngineModel.__init__(self, signature)
        self.graph_module = graph_module
        self.eval()

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Same as the model that was quantized; CaptureError for another call structure."""
        return EngineModel.__call__(self, *args, **kwargs)

    @torch.no_grad()
    def run(self, inputs: Sequence[Tensor]) -> Sequence[Any]:
        """One inference on the flat tensors of a call."""
        return self.graph_module(*inputs)
