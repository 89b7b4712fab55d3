"""A graph as an openvino.Model, operator by operator."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import fx

from ...capture.signature import Signature
from ...errors import EngineError
from ...graph.names import describe
from .compiled import import_openvino
from .known_sizes import rewrite_for_known_sizes

if TYPE_CHECKING:
    import openvino


def build(module: fx.GraphModule, signature: Signature) -> openvino.Model:
    """Convert the graph; its free sizes stay free. EngineError naming what OpenVINO cannot run."""
    import_openvino()
    from .build import Builder
    from .frontend import OperatorConverter
    from .table import Unsupported

    builder = Builder(module, signature, OperatorConverter(module, signature))
    try:
        built = builder.build()
    except Unsupported as e:
        where = f" {describe(e.node)}" if e.node else ""
        raise EngineError(f"OpenVINO cannot run{where}: {e}") from e
    rewrite_for_known_sizes(built)
    for name, value in builder.settings.items():  # which OpenVINO reads when it compiles the file
        built.set_rt_info(value, ["runtime_options", name])
    return built
