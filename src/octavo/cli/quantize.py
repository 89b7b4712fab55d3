"""`octavo quantize`: a model and calibration data in, one file out."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import torch.distributed as dist
import typer

from ..capture.images import with_images
from ..errors import ConfigError
from ..io.file import save
from ..model import QuantizedModel
from ..quantize import quantize as quantize_model
from ..sharded import quantize_sharded
from .data import ImageOptions, as_bytes, load_data
from .options import (
    IMAGES,
    BatchSize,
    ConfigFile,
    DataPath,
    Model,
    Preset,
    Weights,
    loaded,
    out,
    takes_images,
)
from .settings import config_with, takes_settings

NOT_GIVEN = Path("\0")  # no file has this name; --print-config needs none


@takes_images
@takes_settings
def quantize(
    model: Model = "",
    data: DataPath = NOT_GIVEN,
    out_file: Annotated[
        Path, typer.Option("--out", help="File to write (.octavo).", show_default=False)
    ] = NOT_GIVEN,
    weights: Weights = None,
    samples: Annotated[int, typer.Option(min=1, help="Use at most this many samples.")] = 512,
    batch_size: BatchSize = 8,
    preset: Preset = None,
    config: ConfigFile = None,
    print_config: Annotated[
        bool, typer.Option("--print-config", help="Only print all settings, as TOML.")
    ] = False,
    layout: Annotated[
        str | None,
        typer.Option(
            "--bytes",
            metavar="LAYOUT",
            help="Make a model of uint8 images, NHWC or NCHW, which normalizes them itself.",
            rich_help_panel=IMAGES,
        ),
    ] = None,
    histograms: Annotated[
        bool, typer.Option("--histograms", help="Keep histograms, for octavo report --html.")
    ] = False,
    *,
    images: ImageOptions,
    **settings: Any,
) -> None:
    """Quantize MODEL with the samples in DATA and write one file.

    For example: octavo quantize torchvision:resnet50 --weights resnet50.pth
    --data photos/ --out resnet50.octavo

    Under torchrun (torchrun --nproc-per-node 4 -m octavo quantize ...) each
    process observes its share of the batches, on this machine or on several.
    """
    chosen = config_with(preset, settings, config)
    if print_config:
        sys.stdout.write(chosen.to_toml())
        return
    for name, given in (("MODEL", model), ("--data", data), ("--out", out_file)):
        if given in ("", NOT_GIVEN):
            raise ConfigError(f"{name} is missing: see octavo quantize --help")
    if not out_file.parent.is_dir():  # before minutes of work, not after
        raise ConfigError(f"cannot write {out_file}: there is no folder {out_file.parent}")
    net = loaded(model, weights)
    if layout is not None:
        net = with_images(net, as_bytes(layout, net, images))
    rank, count = share = _share()
    batches = load_data(data, net, batch_size, samples, images, share)
    if count > 1:
        q = quantize_sharded(net, batches, config=chosen)
    else:
        q = quantize_model(net, batches, config=chosen)
    if rank == 0:
        save(q, out_file, histograms=histograms)
        out.print(_summary(q, out_file))
    if count > 1:  # end together: who ends first takes its connections from those still at work
        dist.barrier()
        dist.destroy_process_group()


def _share() -> tuple[int, int]:
    """Which of how many processes this is."""
    if not dist.is_torchelastic_launched():
        return 0, 1
    dist.init_process_group("gloo")
    return dist.get_rank(), dist.get_world_size()


def _summary(q: QuantizedModel, file: Path) -> str:
    report = q.report()
    return (
        f"{file}: {file.stat().st_size / 1e6:.2f} MB (was {report.bytes_before / 1e6:.2f}), "
        f"{report.int8_share:.1%} of multiply-adds in int8, "
        f"output SQNR {report.output_sqnr:.1f} dB"
    )
