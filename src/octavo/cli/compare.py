"""`octavo compare`: two models side by side."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from ..compare import compare as compare_models
from ..io.file import load
from ..model import QuantizedModel
from .data import ImageOptions, load_data
from .options import (
    BatchSize,
    DataPath,
    Html,
    Json,
    Rounds,
    Threads,
    Weights,
    loaded,
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
    rounds: Rounds = 50,
    threads: Threads = None,
    *,
    images: ImageOptions,
) -> None:
    """Compare two models: SQNR, same answers, latency, size, and which operators differ.

    For example: octavo compare torchvision:resnet50 resnet50.octavo --weights
    resnet50.pth --data validation/
    """
    models = [_model(spec, weights) for spec in (first, second)]
    for model in models:
        if isinstance(model, QuantizedModel):
            images = images.for_model(model.signature)
    batches = list(load_data(data, models[0], batch_size, samples, images))
    found = compare_models(models[0], models[1], batches, rounds=rounds, threads=threads)
    show(found, as_json, html)


def _model(spec: str, weights: Path | None) -> Any:
    return load(spec) if spec.endswith(".octavo") else loaded(spec, weights)
