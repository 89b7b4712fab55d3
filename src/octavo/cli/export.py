"""`octavo export`: a file for other runtimes."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ..io.export import export as export_model
from ..io.file import load
from ..progress import working
from .options import Quantized, out


def export(
    file: Quantized,
    out_file: Annotated[Path, typer.Argument(metavar="OUT", help="File to write: .onnx or .xml.")],
) -> None:
    """Write a quantized model as ONNX (.onnx) or OpenVINO IR (.xml and .bin).

    For example: octavo export resnet50.octavo resnet50.onnx
    """
    with working("writing, and comparing the file with the model"):
        export_model(load(file), out_file)
    out.print(f"{out_file}: written")
