"""`octavo compare`: two models side by side."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from ..compare import compare as compare_models
from ..io.file import load
from .data import ImageOptions, load_data
from .models import load_model
from .options import (
    BatchSize,
    DataPath,
    Html,
    Json,
    Weights,
    show,
    takes_images,
)

EITHER = "A file from octavo quantize (.octavo), or a MODEL as in octavo quantize."
A = Annotated[str, typer.Argument(metavar="A", help=EITHER)]
B = Annotated[str, typer.Argument(metavar="B", help="The same.")]


@takes_images
def compare(
    first: A,
    second: B,
    data: DataPath,
    weights: Weights = None,
    samples: Annotated[int, typer.Option(min=1, help="Use at most this many samples.")] = 256,
    batch_size: BatchSize = 1,
    as_json: Json = False,
    html: Html = None,
    *,
    images: ImageOptions,
) -> None:
    """Compare two models: SQNR, same answers, latency, size, and which operators differ.

    For example: octavo compare torchvision:resnet50 resnet50.octavo --weights
    resnet50.pth --data validation/
    """
    models = [_model(spec, weights) for spec in (first, second)]
    batches = load_data(data, models[0], batch_size, samples, images)
    show(compare_models(models[0], models[1], list(batches)), as_json, html)


def _model(spec: str, weights: Path | None) -> Any:
    return load(spec) if spec.endswith(".octavo") else load_model(spec, weights)
