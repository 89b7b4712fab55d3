"""`octavo report`: what became of each operator."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from ..io.file import load
from .options import Quantized, out


def report(
    file: Quantized,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead.")] = False,
    html: Annotated[
        Path | None, typer.Option("--html", help="Write a page for browsers instead (.html).")
    ] = None,
) -> None:
    """Show what became of each operator of a quantized model.

    The page has histograms if the file does: `octavo quantize --histograms`.
    """
    found = load(file).report()
    if html is not None:
        found.html(html)
        out.print(f"{html}: {html.stat().st_size / 1e3:.0f} kB")
    if as_json:
        sys.stdout.write(json.dumps(found.to_dict(), indent=1) + "\n")
    elif html is None:
        out.print(found)
