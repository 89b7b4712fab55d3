"""`octavo sensitivity`: which operators lose accuracy."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from ..sensitivity import sensitivity as find_sensitivity
from .data import ImageOptions, load_data
from .options import (
    BatchSize,
    ConfigFile,
    DataPath,
    Html,
    Json,
    Model,
    Preset,
    Weights,
    loaded,
    show,
    takes_images,
)
from .settings import config_with, takes_settings


@takes_images
@takes_settings
def sensitivity(
    model: Model,
    data: DataPath,
    weights: Weights = None,
    samples: Annotated[int, typer.Option(min=1, help="Use at most this many samples.")] = 256,
    batch_size: BatchSize = 8,
    timed: Annotated[bool, typer.Option(help="Time each point with OpenVINO.")] = True,
    as_json: Json = False,
    html: Html = None,
    preset: Preset = None,
    config: ConfigFile = None,
    *,
    images: ImageOptions,
    **settings: Any,
) -> None:
    """Order the operators by the noise they add, and keep more and more of them float.

    For example: octavo sensitivity torchvision:mobilenet_v2 --weights
    mobilenet_v2.pth --data photos/
    """
    chosen = config_with(preset, settings, config)
    net = loaded(model, weights)
    batches = load_data(data, net, batch_size, samples, images)
    show(find_sensitivity(net, batches, chosen, timed=timed), as_json, html)
