"""The torch_int8 engine: PyTorch's own oneDNN kernels on plain uint8 / int8 tensors."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import fx, nn

from ...capture.signature import Signature
from ...errors import EngineError
from ..base import register_engine

if TYPE_CHECKING:
    from ...model import QuantizedModel


@register_engine("torch_int8")
def torch_int8(model: QuantizedModel) -> TorchInt8:
    """An nn.Module of PyTorch's own int8 kernels: no second runtime; on x86 CPUs.

    It is called like the model, works inside a larger PyTorch program and under
    `torch.inference_mode`, and has no gradients.
    """
    if not (torch.backends.mkldnn.is_available() and hasattr(torch.ops.onednn, "qconv_prepack")):
        raise EngineError(
            "the engine 'torch_int8' needs a PyTorch built with oneDNN: use compile('openvino')"
        )
    from .lowering import lower

    return TorchInt8(lower(model.graph_module, model.signature), model.signature)


class TorchInt8(nn.Module):
    """The lowered graph, called like the model."""

    def __init__(self, graph_module: fx.GraphModule, signature: Signature) -> None:
        super().__init__()
        self.graph_module, self.signature = graph_module, signature
        self.eval()

    @torch.no_grad()
    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """As the model that was quantized; raises CaptureError for another call structure."""
        return self.signature.unflatten(self.graph_module(*self.signature.flatten(args, kwargs)))
