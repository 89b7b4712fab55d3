"""Export: the quantized model as a file that other runtimes read, without Octavo or PyTorch."""

from __future__ import annotations

import os
import shutil
import tempfile
import warnings
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

from ..engines.base import EngineModel, compile_program, disagreement
from ..engines.onnx.engine import run_file
from ..engines.onnx.export import describe_file, to_onnx
from ..engines.openvino.compiled import CompiledModel, import_openvino, openvino_core
from ..engines.openvino.convert import build
from ..errors import EngineError, FormatError, SaveWarning
from ..model import QuantizedModel
from .facts import describe_layers, facts_by_node, facts_of


def export(model: QuantizedModel, path: str | os.PathLike[str], check: bool = True) -> None:
    """Write `model` for another runtime, by the suffix of `path`: ".onnx" or ".xml".

    ".onnx": opset 21, QuantizeLinear / DequantizeLinear with int8 weights, for ONNX Runtime and
        others that read ONNX; needs the packages onnx and onnxscript.
    ".xml": OpenVINO's IR, with the int8 weights in a ".bin" beside it.

    check: run the file in its runtime, if that is installed, and compare it with the model on a few
        inputs of several sizes, before it takes its place.

    Both hold precision and SQNR of each operator as metadata, of the model and of the operators,
    which viewers such as Netron show.

    Sizes that are dynamic in the model (the batch) are dynamic in the file. The file is written
    under a temporary name and moved when complete. Raises FormatError for another suffix, a missing
    folder, a graph that the format cannot hold, or a file that computes something else. Warns
    (SaveWarning) if what the model does depends on sizes, which nothing in the file checks.

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
        write, run = EXPORTERS[target.suffix]
        write(model, Path(folder, target.name))
        found = check and disagreement(run(model, Path(folder, target.name)), model)
        if found:
            raise FormatError(
                f"the exported {target.suffix} file computes something else than the model: "
                f"{found[1]}. Nothing was written; export(..., check=False) would write it"
            )
        for file in sorted(Path(folder).iterdir()):  # .bin before .xml
            shutil.move(file, target.with_suffix(file.suffix))
    if model.signature.branches:
        warnings.warn(
            f"{target.name} computes what the model does only for inputs whose sizes meet "
            f"{' and '.join(model.signature.branches)}; nothing in the file checks that",
            SaveWarning,
            stacklevel=2,
        )


def _to_ir(model: QuantizedModel, path: Path) -> None:
    openvino = import_openvino()
    try:
        built = build(model.graph_module, model.signature)
    except EngineError as e:
        raise FormatError(f"OpenVINO's IR cannot hold this model: {e}") from e
    for key, value in facts_of(model.report()).items():
        built.set_rt_info(value, ["octavo", key])
    openvino.save_model(built, path, compress_to_fp16=False)
    describe_layers(path, facts_by_node(model.graph, model.report()))


def _run_ir(model: QuantizedModel, path: Path) -> EngineModel:
    """The file as others run it: for any shape."""
    built = openvino_core().read_model(path)
    settings = {"INFERENCE_PRECISION_HINT": "f32"}
    compiled = CompiledModel(built, model.signature, settings)
    compiled.use_one_for_any_shape()
    return compiled


def _to_onnx(model: QuantizedModel, path: Path) -> None:
    to_onnx(model.graph_module, model.signature, path)
    facts = {f"octavo.{k}": v for k, v in facts_of(model.report()).items()}
    by_name = {node.name: f for node, f in facts_by_node(model.graph, model.report()).items()}
    describe_file(path, model.signature, facts, by_name)


def _run_onnx(model: QuantizedModel, path: Path) -> EngineModel:
    """The file in ONNX Runtime, or the model itself where that is not installed."""
    if find_spec("onnxruntime") is None:
        return compile_program(model, "reference")
    try:
        return run_file(path, model.signature)
    except EngineError as e:
        raise FormatError(f"{e}. Nothing was written") from e


Writer = Callable[[QuantizedModel, Path], None]
Runner = Callable[[QuantizedModel, Path], EngineModel]
EXPORTERS: dict[str, tuple[Writer, Runner]] = {
    ".onnx": (_to_onnx, _run_onnx),
    ".xml": (_to_ir, _run_ir),
}
