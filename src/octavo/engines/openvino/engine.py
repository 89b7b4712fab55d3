"""The OpenVINO engine: Intel's and ARM's CPU kernels, int8 end to end.

The openvino.Model is built directly from the graph, operator by operator, which takes
milliseconds. A quantize -> dequantize pair becomes one FakeQuantize, and an int8 weight becomes a
constant with its scale; OpenVINO fuses these into integer kernels. If the table lacks an operator
of the graph, OpenVINO's PyTorch frontend converts the whole graph instead. What the frontend
cannot convert either runs in PyTorch.
"""

from __future__ import annotations

from typing import Any

from ...errors import EngineError
from ..base import EngineModel, Program, register_engine
from .compiled import CompiledModel, import_openvino
from .convert import build


@register_engine("openvino")
def openvino_engine(
    model: Program, threads: int | None = None, hint: str = "latency"
) -> EngineModel:
    """Compile for OpenVINO's CPU plugin.

    Operators that OpenVINO cannot run, such as Fourier transforms, run in PyTorch: a
    PartitionWarning says so, and `in_pytorch` of the compiled model lists them.

    threads: the most threads to use; by default OpenVINO uses all physical cores.
    hint: "latency" (one call at a time is fastest) or "throughput" (many at once).
    """
    openvino = import_openvino()
    if hint not in ("latency", "throughput"):
        raise EngineError(f"hint={hint!r}: choose 'latency' or 'throughput'")
    # By default OpenVINO computes the float operators in bfloat16 on CPUs that have it. That costs
    # up to 15 dB at the output and is no faster beside int8.
    settings: dict[str, Any] = {
        "PERFORMANCE_HINT": hint.upper(),
        "INFERENCE_PRECISION_HINT": "f32",
    }
    if threads is not None:
        settings["INFERENCE_NUM_THREADS"] = threads
    core = openvino.Core()
    try:
        built = build(model.graph_module, model.signature)
    except EngineError:
        from .partition import PartitionedModel

        return PartitionedModel(core, model.graph_module, model.signature, settings)
    return CompiledModel(core, built, model.signature, settings)
