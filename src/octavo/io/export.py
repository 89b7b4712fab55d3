"""Export: the quantized model as a file that other runtimes read, without Octavo or PyTorch."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

from ..engines.onnx.engine import to_onnx
from ..engines.openvino.engine import build, import_openvino
from ..errors import EngineError, FormatError
from ..model import QuantizedModel


def export(model: QuantizedModel, path: str | os.PathLike[str]) -> None:
    """Write `model` for another runtime, by the suffix of `path`: ".onnx" or ".xml".

    ".onnx": opset 21, QuantizeLinear / DequantizeLinear with int8 weights, for ONNX Runtime and
        others that read ONNX; needs the packages onnx and onnxscript.
    ".xml": OpenVINO's IR, with the int8 weights in a ".bin" beside it.

    Sizes that are dynamic in the model (the batch) are dynamic in the file. The file is written
    under a temporary name and moved when complete. Raises FormatError for another suffix, a missing
    folder, or a graph that the format cannot hold.

    >>> import octavo, tempfile, torch
    >>> q = octavo.quantize(torch.nn.Linear(4, 2), torch.rand(8, 4))
    >>> octavo.export(q, os.path.join(tempfile.mkdtemp(), "linear.xml"))
    """
    target = Path(path)
    if not isinstance(model, QuantizedModel):
        raise FormatError(f"export takes an octavo.QuantizedModel, not a {type(model).__name__}")
    if target.suffix not in EXPORTERS:
        known = ", ".join(EXPORTERS)
        raise FormatError(f"cannot export to {target.name!r}: the suffix must be one of {known}")
    if not target.parent.is_dir():
        raise FormatError(f"cannot write {target}: there is no folder {target.parent}")
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{target.name}.") as folder:
        EXPORTERS[target.suffix](model, Path(folder, target.name))
        for file in sorted(Path(folder).iterdir()):  # .bin before .xml
            shutil.move(file, target.with_suffix(file.suffix))


def _to_ir(model: QuantizedModel, path: Path) -> None:
    openvino = import_openvino()
    try:
        built = build(model.graph_module, model.signature)
    except EngineError as e:
        raise FormatError(f"OpenVINO's IR cannot hold this model: {e}") from e
    openvino.save_model(built, path, compress_to_fp16=False)


def _to_onnx(model: QuantizedModel, path: Path) -> None:
    to_onnx(model.graph_module, model.signature, path)


EXPORTERS: dict[str, Callable[[QuantizedModel, Path], None]] = {".onnx": _to_onnx, ".xml": _to_ir}
