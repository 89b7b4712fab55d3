"""`octavo report`: what became of each operator."""

from __future__ import annotations

import json
import sys
from typing import Annotated

import typer

from ..io.file import load
from .options import Quantized, out


def report(
    file: Quantized,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead.")] = False,
) -> None:
    """Show what became of each operator of a quantized model."""
    found = load(file).report()
    if as_json:
        sys.stdout.write(json.dumps(found.to_dict(), indent=1) + "\n")
    else:
        out.print(found)
