"""A graph as an openvino.Model, operator by operator."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import fx

from ...capture.signature import Signature
from ...errors import EngineError
from ...graph.names import describe
from .compiled import import_openvino

if TYPE_CHECKING:
    import openvino


def build(module: fx.GraphModule, signature: Signature) -> openvino.Model:
    """Convert the graph; its free sizes stay free. EngineError naming what OpenVINO cannot run."""
    import_openvino()
    from .build import Builder
    from .frontend import OperatorConverter
    from .table import Unsupported

    try:
        return Builder(module, signature, OperatorConverter(module, signature)).build()
    except Unsupported as e:
        where = f" {describe(e.node)}" if e.node else ""
        raise EngineError(f"OpenVINO cannot run{where}: {e}") from e
