"""ONNX: the graph in QDQ form, and the engine that runs it in ONNX Runtime.

torch.onnx translates the ATen operators; Octavo's own become QuantizeLinear and DequantizeLinear.
ONNX Runtime fuses these with the operators between them into integer kernels.
"""

from __future__ import annotations

import contextlib
import io
import tempfile
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, fx
from torch.export import Dim

from ...capture.export import quiet
from ...capture.signature import Signature
from ...errors import EngineError, FormatError
from ...graph import ops
from ..base import EngineModel, Program, register_engine
from .graph import to_qdq

aten = torch.ops.aten

OPSET = 21
MISSING = "needs the packages onnx, onnxscript and onnxruntime: pip install octavo[onnx]"


def to_onnx(module: fx.GraphModule, signature: Signature, path: Path) -> None:
    """Write a quantized graph as an ONNX file; FormatError if ONNX cannot represent it."""
    try:
        import onnx
        import onnxscript  # noqa: F401
    except ImportError as e:
        raise FormatError(f"export to ONNX {MISSING}") from e

    free = tuple(
        {i: Dim.DYNAMIC for i, d in enumerate(s) if d is None} for _, s in signature.inputs
    )
    names = [n.name for n in module.graph.nodes if n.op == "placeholder"]
    try:
        with torch.no_grad(), quiet(), contextlib.redirect_stdout(io.StringIO()):
            program = torch.export.export(
                to_qdq(module), signature.examples(2), dynamic_shapes=free
            )
            torch.onnx.export(
                program,
                f=path,
                opset_version=OPSET,
                input_names=names,
                custom_translation_table=_translations(),
                external_data=False,
                optimize=False,
                verbose=False,
            )
        onnx.checker.check_model(path, full_check=True)
    except Exception as e:
        line = next(iter(str(e).strip().splitlines()), "")
        reason = f"{type(e).__name__}: {line}"
        raise FormatError(f"this model cannot be written as ONNX: {reason}") from e


def _translations() -> dict[Any, Any]:
    from onnxscript import opset21 as op

    def quantize(x, scale, zero_point, qmin, qmax, dtype, axis=None):  # type: ignore[no-untyped-def]
        return op.QuantizeLinear(x, scale, zero_point, axis=1 if axis is None else axis)

    def dequantize(q, scale, zero_point=None, axis=None):  # type: ignore[no-untyped-def]
        return op.DequantizeLinear(q, scale, zero_point, axis=1 if axis is None else axis)

    def hardtanh(x, min_val=-1.0, max_val=1.0):  # type: ignore[no-untyped-def]
        # bounds as constants, without the casts of torch.onnx, which hide them from ONNX Runtime
        bounds = (op.Constant(value_float=float(v)) for v in (min_val, max_val))
        return op.Clip(x, *bounds)

    return {ops.quantize: quantize, ops.dequantize: dequantize, aten.hardtanh.default: hardtanh}


@register_engine("onnxruntime")
def onnxruntime_engine(model: Program, threads: int | None = None) -> EngineModel:
    """Compile for ONNX Runtime's CPU kernels; any batch size.

    threads: the most threads to use; by default ONNX Runtime uses all physical cores.
    """
    try:
        import onnxruntime
    except ImportError as e:
        raise EngineError(f"the engine 'onnxruntime' {MISSING}") from e
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    if threads is not None:
        options.intra_op_num_threads = threads
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        path = Path(folder, "model.onnx")
        try:
            to_onnx(model.graph_module, model.signature, path)
            session = onnxruntime.InferenceSession(path, options, ["CPUExecutionProvider"])
        except FormatError as e:
            raise EngineError(str(e)) from e
    return OnnxModel(session, model.signature)


class OnnxModel(EngineModel):
    """A session of ONNX Runtime, called like the model."""

    def __init__(self, session: Any, signature: Signature) -> None:
        super().__init__(signature)
        self.session = session
        self.inputs = [(i.name, i.type) for i in session.get_inputs()]

    def run(self, inputs: Sequence[Tensor]) -> list[Tensor]:
        """One inference on the flat tensors of a call."""
        feeds = {
            name: (t.float() if kind == "tensor(float)" else t).contiguous().numpy(force=True)
            for (name, kind), t in zip(self.inputs, inputs, strict=True)
        }
        return [torch.from_numpy(r) for r in self.session.run(None, feeds)]
