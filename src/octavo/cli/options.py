"""What several commands share: arguments, options, and where they print."""

from __future__ import annotations

import functools
import inspect
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer
from rich.console import Console
from torch import nn

from ..config import PRESETS
from ..errors import ConfigError
from .data import ImageOptions
from .models import load_model, note_on_weights

Command = TypeVar("Command", bound=Callable[..., Any])

out = Console(width=None if sys.stdout.isatty() else 160)
err = Console(stderr=True)

IMAGES = "Images"  # the panel of --help
MEAN, STD = (",".join(map(str, v)) for v in (ImageOptions.mean, ImageOptions.std))

Model = Annotated[
    str,
    typer.Argument(
        metavar="MODEL",
        help="package.module:callable or file.py:callable (which takes no arguments and returns "
        "the model), torchvision:NAME, timm:NAME or transformers:NAME; timm and transformers also "
        "take a local folder.",
    ),
]
Quantized = Annotated[Path, typer.Argument(metavar="FILE", help="A file from octavo quantize.")]
Weights = Annotated[
    Path | None,
    typer.Option(
        help="State dict to load: .safetensors, or .pth (weights only); pretrained: those that "
        "torchvision or timm download."
    ),
]
DataPath = Annotated[
    Path,
    typer.Option(
        "--data",
        help="Folder of images, of .npy / .npz / .safetensors files with samples along the first "
        "axis, or of .txt files with a text in each line (or one such file).",
        show_default=False,
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON instead.")]
Html = Annotated[
    Path | None, typer.Option("--html", help="Write a page for browsers instead (.html).")
]
Preset = Annotated[
    str | None,
    typer.Option(help=f"Settings to start from: {', '.join(PRESETS)}.", show_default="balanced"),
]
ConfigFile = Annotated[
    Path | None, typer.Option("--config", help="Settings to start from, in a TOML file.")
]
BatchSize = Annotated[int, typer.Option(min=1, help="Samples in a batch.")]
Rounds = Annotated[int, typer.Option(min=1, help="Timed calls of each.")]
Threads = Annotated[int | None, typer.Option(min=1, help="CPU threads.", show_default="all")]
Size = Annotated[
    int, typer.Option(min=1, help="Side of the square crop, in pixels.", rich_help_panel=IMAGES)
]
Resize = Annotated[
    int | None,
    typer.Option(
        min=1,
        help="Shorter side before the crop.",
        show_default="size / 0.875",
        rich_help_panel=IMAGES,
    ),
]
Mean = Annotated[
    str, typer.Option(help="Mean of pixels in 0..1, per channel.", rich_help_panel=IMAGES)
]
Std = Annotated[str, typer.Option(help="Standard deviation, per channel.", rich_help_panel=IMAGES)]
Processor = Annotated[
    str | None,
    typer.Option(
        help="Or as this image processor of Hugging Face does (a name or folder); for texts, the "
        "tokenizer.",
        show_default="that of transformers:NAME",
        rich_help_panel=IMAGES,
    ),
]


def takes_images(command: Command) -> Command:
    """Decorator: for typer, the options of `image_options` take the place of `images`."""
    own = inspect.signature(command, eval_str=True)
    options = inspect.signature(image_options, eval_str=True).parameters

    @functools.wraps(command)
    def run(*args: Any, **kwargs: Any) -> Any:
        images = image_options(**{name: kwargs.pop(name) for name in options})
        return command(*args, images=images, **kwargs)

    kept = [p for p in own.parameters.values() if p.name != "images"]
    added = [p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in options.values()]
    run.__signature__ = own.replace(parameters=[*kept, *added])  # type: ignore[attr-defined]
    return run  # type: ignore[return-value]


def image_options(
    size: Size = ImageOptions.size,
    resize: Resize = None,
    mean: Mean = MEAN,
    std: Std = STD,
    processor: Processor = None,
) -> ImageOptions:
    """How to read images; raises ConfigError unless mean and std are one number each, or three."""
    means, stds = _numbers("--mean", mean), _numbers("--std", std)
    if len(means) != len(stds) or len(means) not in (1, 3):
        raise ConfigError(f"--mean {mean} and --std {std}: give one number each, or three")
    return ImageOptions(size, resize, means, stds, processor)


def _numbers(option: str, text: str) -> tuple[float, ...]:
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError as e:
        raise ConfigError(f"{option} {text!r}: numbers with commas between them are needed") from e


def loaded(spec: str, weights: Path | None) -> nn.Module:
    """The model that a MODEL argument names; says so where it may lack its trained weights."""
    model = load_model(spec, weights)
    if weights is None and (note := note_on_weights(spec)):
        err.print(f"note: {note}", markup=False, highlight=False)
    return model


def show(found: Any, as_json: bool, html: Path | None = None) -> None:
    """Print a result as a table or as JSON, or write it as a page (and print its JSON as well)."""
    if html is not None:
        found.html(html)
        err.print(f"{html}: {html.stat().st_size / 1e3:.0f} kB")
    if as_json:
        sys.stdout.write(json.dumps(found.to_dict(), indent=1) + "\n")
    elif html is None:
        out.print(found)
