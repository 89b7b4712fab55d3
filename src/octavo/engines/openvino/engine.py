"""The OpenVINO engine: Intel's and ARM's CPU kernels, int8 end to end.

The openvino.Model is built directly from the graph, operator by operator, which takes
milliseconds. A quantize -> dequantize pair becomes one FakeQuantize, and an int8 weight becomes a
constant with its scale; OpenVINO fuses these into integer kernels. An operator that the table lacks
is converted alone by OpenVINO's PyTorch frontend. What that cannot convert, or what OpenVINO
computes wrongly, runs in PyTorch.
"""

from __future__ import annotations

from typing import Any

from ...errors import EngineError
from ..base import EngineModel, Program, register_engine
from .compiled import import_openvino


@register_engine("openvino")
def openvino_engine(
    model: Program, threads: int | None = None, hint: str = "latency", check: bool = True
) -> EngineModel:
    """Compile for OpenVINO's CPU plugin.

    Operators that OpenVINO cannot run, such as Fourier transforms, or that it computes wrongly, run
    in PyTorch: a PartitionWarning says so, and `in_pytorch` of the compiled model lists them.

    threads: the most threads to use; by default OpenVINO uses all physical cores.
    hint: "latency" (one call at a time is fastest) or "throughput" (many at once).
    check: compare the compiled model with the reference on a few inputs.
    """
    import_openvino()
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
    from .checked import compile_checked

    return compile_checked(model, settings, check)
