"""`octavo report`: what became of each operator."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ..io.file import load
from .options import Json, Quantized, out, show


def report(
    file: Quantized,
    as_json: Json = False,
    html: Annotated[
        Path | None, typer.Option("--html", help="Write a page for browsers instead (.html).")
    ] = None,
) -> None:
    """Show what became of each operator of a quantized model.

    The page has histograms if the file does: octavo quantize --histograms. For
    example: octavo report resnet50.octavo --html report.html
    """
    found = load(file).report()
    if html is not None:
        found.html(html)
        out.print(f"{html}: {html.stat().st_size / 1e3:.0f} kB")
    if as_json or html is None:
        show(found, as_json)
