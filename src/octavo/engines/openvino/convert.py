"""A graph as an openvino.Model: by the table, or else by OpenVINO's PyTorch frontend."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import fx

from ...capture.signature import Signature
from .compiled import import_openvino

if TYPE_CHECKING:
    import openvino


def build(module: fx.GraphModule, signature: Signature) -> openvino.Model:
    """Convert the graph; its free sizes stay free. EngineError if OpenVINO cannot represent it."""
    import_openvino()
    from .build import Builder
    from .frontend import convert_by_frontend
    from .table import Unsupported

    try:
        return Builder(module, signature).build()
    except Unsupported:
        return convert_by_frontend(module, signature)
