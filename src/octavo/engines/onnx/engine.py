"""ONNX: the graph in QDQ form, and the engine that runs it in ONNX Runtime.

torch.onnx translates the ATen operators; Octavo's own become QuantizeLinear and DequantizeLinear.
ONNX Runtime fuses these with the operators between them into integer kernels.
"""

from __future__ import annotations

import os
import re
import tempfile
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ...capture.signature import Signature
from ...errors import EngineError, FormatError
from ..base import EngineModel, Program, cannot_run, refuse_after_fork, register_engine
from .export import MISSING, to_onnx


@register_engine("onnxruntime")
def onnxruntime_engine(model: Program, threads: int | None = None) -> EngineModel:
    """Compile for ONNX Runtime's CPU kernels; any batch size.

    Its integer convolutions return integers only. So their outputs are rounded also where the
    reference keeps them in float, before a concatenation, say; there values beyond 1.25 times the
    range that calibration saw are clipped, and only there do results differ by more than rounding.

    threads: the most threads to use; by default ONNX Runtime uses all physical cores.
    """
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        path = Path(folder, "model.onnx")
        try:
            to_onnx(model.graph_module, model.signature, path)
        except FormatError as e:
            raise EngineError(str(e)) from e
        return run_file(path, model.signature, threads)


def run_file(path: Path, signature: Signature, threads: int | None = None) -> OnnxModel:
    """A file in ONNX Runtime, called like the model; EngineError if it cannot load it."""
    try:
        import onnxruntime
    except ImportError as e:
        raise EngineError(f"the engine 'onnxruntime' {MISSING}") from e
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # errors are raised, not printed as well
    # it would round float inputs of layers with int8 weights as it rounds those of dynamic layers
    options.add_session_config_entry("session.qdq_matmulnbits_accuracy_level", "1")
    if threads is not None:
        options.intra_op_num_threads = threads
    try:
        session = onnxruntime.InferenceSession(path, options, ["CPUExecutionProvider"])
    except Exception as e:
        raise EngineError(f"ONNX Runtime cannot load this model: {_reason(e)}") from e
    return OnnxModel(session, signature)


class OnnxModel(EngineModel):
    """A session of ONNX Runtime, called like the model."""

    agreement = 20.0  # it rounds some values that the reference leaves float

    def __init__(self, session: Any, signature: Signature) -> None:
        super().__init__(signature)
        self.session, self.process = session, os.getpid()
        self.inputs = [(i.name, i.type) for i in session.get_inputs()]

    @property
    def _is_single(self) -> bool:
        """Whether the session runs in the thread that calls it."""
        return bool(self.session.get_session_options().intra_op_num_threads == 1)

    def run(self, inputs: Sequence[Tensor]) -> list[Tensor]:
        """One inference on the flat tensors of a call."""
        if not self._is_single:
            refuse_after_fork(self.process, "ONNX Runtime")
        feeds = {
            name: (t.float() if kind == "tensor(float)" else t).contiguous().numpy(force=True)
            for (name, kind), t in zip(self.inputs, inputs, strict=True)
        }
        try:
            return [torch.from_numpy(r) for r in self.session.run(None, feeds)]
        except Exception as e:
            raise cannot_run("ONNX Runtime", inputs, _reason(e)) from e


def _reason(error: Exception) -> str:
    """ONNX Runtime's message in one line, with its node and without the places in its source."""
    text = " ".join(str(error).split())
    node = re.search(r"while running (\w+) node\. Name:'([^']*)'", text)
    text = re.sub(r"^.*(Status Message: |\[ONNXRuntimeError\] : \d+ : \w+ : )", "", text)
    text = re.sub(r"^\S+\.(cc|h):\d+ .*?\) (?=\S)", "", text)
    where = f"{node[1]} node {node[2]!r}: " if node else ""
    return f"{where}{text}; use compile('openvino')"
