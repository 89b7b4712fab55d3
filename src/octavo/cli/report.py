"""`octavo report`: what became of each operator."""

from __future__ import annotations

import dataclasses
from typing import Annotated

import typer

from ..bench import latency
from ..io.file import load
from .options import Html, Json, Quantized, show


def report(
    file: Quantized,
    as_json: Json = False,
    html: Html = None,
    timed: Annotated[
        bool, typer.Option("--time", help="Also time a call with one sample in OpenVINO.")
    ] = False,
) -> None:
    """Show what became of each operator of a quantized model.

    The page has histograms if the file does: octavo quantize --histograms. For
    example: octavo report resnet50.octavo --html report.html
    """
    q = load(file)
    found = q.report()
    if timed:
        found = dataclasses.replace(found, latency=latency(q))
    show(found, as_json, html)
