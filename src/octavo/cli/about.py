"""`octavo inspect`, `engines` and `version`: what a file, and this installation, are."""

from __future__ import annotations

import dataclasses
import importlib.metadata
from collections import Counter
from typing import Any

import torch
from rich.table import Table

from .. import __version__
from ..config import Config
from ..engines.base import BUILT_IN, ENGINES
from ..io.file import load
from .options import Json, Quantized, out, show

RUNTIMES = {"openvino": "openvino", "onnxruntime": "onnxruntime"}  # engine -> its package


@dataclasses.dataclass(frozen=True)
class Facts:
    """What a file holds."""

    inputs: tuple[str, ...]
    conditions: tuple[str, ...]
    operators: dict[str, int]
    bytes: int
    settings: dict[str, Any]

    def to_dict(self) -> dict[str, Any]:
        """As JSON data."""
        return dataclasses.asdict(self)

    def __rich__(self) -> Table:
        """The table for rich."""
        table = Table(show_header=False)
        kinds = ", ".join(f"{count} {name}" for name, count in self.operators.items())
        settings = ", ".join(f"{k}={v}" for k, v in self.settings.items()) or "defaults"
        table.add_row("inputs", "\n".join(self.inputs))
        if self.conditions:
            table.add_row("which must meet", "\n".join(self.conditions))
        table.add_row("operators", kinds)
        table.add_row("tensors", f"{self.bytes / 1e6:.2f} MB")
        table.add_row("settings", settings)
        return table


def inspect(file: Quantized, as_json: Json = False) -> None:
    """Show what a quantized model takes, holds, and was made with.

    For example: octavo inspect resnet50.octavo
    """
    model = load(file)
    inputs = (
        f"{dtype} ({', '.join('any' if d is None else str(d) for d in shape)})"
        for dtype, shape in model.signature.inputs
    )
    images = (
        f"{name}: images, {image.layout}, normalized with mean {image.mean}, std {image.std}"
        for name, image in model.signature.images
    )
    report, usual = model.report(), dataclasses.asdict(Config())
    given = dataclasses.asdict(model.config)
    facts = Facts(
        (*inputs, *images),
        model.signature.branches,
        dict(Counter(r.precision for r in report.rows)),
        report.bytes_after,
        {name: value for name, value in given.items() if value != usual[name]},
    )
    show(facts, as_json)


def engines() -> None:
    """List the engines that run quantized models, and whether they are installed.

    For example: octavo engines
    """
    table = Table()
    for column in ("engine", "runtime"):
        table.add_column(column)
    for name in sorted({*BUILT_IN, *ENGINES}):
        package = RUNTIMES.get(name, "torch")
        try:
            found = f"{package} {importlib.metadata.version(package)}"
        except importlib.metadata.PackageNotFoundError:
            found = f"not installed: pip install {package}"
        table.add_row(name, found)
    out.print(table)


def version() -> None:
    """Show the versions of Octavo and PyTorch.

    For example: octavo version
    """
    out.print(f"octavo {__version__}, torch {torch.__version__}")
