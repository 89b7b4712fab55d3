"""The command line: `octavo quantize`, `report`, `bench`, `export`."""

from __future__ import annotations

import dataclasses
import json
import sys
import warnings
from pathlib import Path
from typing import Annotated, Any

import torch
import torch.distributed as dist
import typer
from rich.console import Console

from .. import __version__
from ..bench import bench_table, compare_engines, example_call, profile, profile_tables
from ..calibrate.observers import OBSERVERS
from ..config import PRESETS, as_config
from ..errors import CollapseWarning, ConfigError, OctavoError, PartitionWarning
from ..io.export import export as export_model
from ..io.file import load, save
from ..quantize import quantize as quantize_model
from ..sharded import quantize_sharded
from .loaders import ImageOptions, load_data, load_model

app = typer.Typer(
    help="Turn a trained PyTorch model into a fast, accurate int8 model.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
out = Console(width=None if sys.stdout.isatty() else 160)
err = Console(stderr=True)

Model = Annotated[
    str,
    typer.Argument(
        metavar="MODEL",
        help="package.module:callable, file.py:callable, torchvision:NAME or timm:NAME; the "
        "callable takes no arguments and returns the model.",
    ),
]
Weights = Annotated[
    Path | None, typer.Option(help="State dict to load: .safetensors, or .pth (weights only).")
]
DataPath = Annotated[
    Path,
    typer.Option(
        "--data",
        help="Folder of images, or of .npy / .npz / .safetensors files (or one such file) with "
        "samples along the first axis.",
    ),
]
BatchSize = Annotated[int, typer.Option(min=1, help="Samples a batch.")]
Size = Annotated[int, typer.Option(min=1, help="Images: side of the square crop, in pixels.")]
Resize = Annotated[
    int | None, typer.Option(help="Images: shorter side before the crop [default: size / 0.875].")
]
Mean = Annotated[str, typer.Option(help="Images: mean per channel of pixels in 0..1, a,b,c.")]
Std = Annotated[str, typer.Option(help="Images: standard deviation per channel, a,b,c.")]
Observer = Annotated[str | None, typer.Option(help=f"Ranges by: {', '.join(OBSERVERS)}.")]
KeepFloat = Annotated[
    list[str] | None,
    typer.Option(help="Module path (with * and ?) or operator to keep float; repeatable."),
]
MinSqnr = Annotated[
    float | None,
    typer.Option(help="Turn sites float, with a warning, if the SQNR is below so many dB."),
]
TargetSqnr = Annotated[
    float | None,
    typer.Option(help="Turn the few sites float with which the SQNR is so many dB."),
]
Optimize = Annotated[
    str | None, typer.Option(help="size, or latency: float what measures slower in int8 here.")
]
ReduceRange = Annotated[
    bool | None,
    typer.Option(help="Weights of 7 bits, for x86 without VNNI [default: as this machine is]."),
]
MEAN, STD = "0.485,0.456,0.406", "0.229,0.224,0.225"


@app.command()
def quantize(
    model: Model,
    data: DataPath,
    out_file: Annotated[Path, typer.Option("--out", help="File to write (.octavo).")],
    weights: Weights = None,
    samples: Annotated[int, typer.Option(min=1, help="Use at most so many samples.")] = 512,
    batch_size: BatchSize = 8,
    size: Size = 224,
    resize: Resize = None,
    mean: Mean = MEAN,
    std: Std = STD,
    preset: Annotated[
        str, typer.Option(help=f"{', '.join(PRESETS)}: the options below change it.")
    ] = "balanced",
    observer: Observer = None,
    keep_float: KeepFloat = None,
    min_sqnr: MinSqnr = None,
    target_sqnr: TargetSqnr = None,
    optimize: Optimize = None,
    reduce_range: ReduceRange = None,
) -> None:
    """Quantize MODEL with the samples in DATA and write one file.

    Under torchrun (torchrun --nproc-per-node 4 -m octavo quantize ...) each process observes its
    share of the batches, on this machine or on several.
    """
    given = {
        "observer": observer,
        "keep_float": tuple(keep_float) if keep_float else None,
        "min_sqnr": min_sqnr,
        "target_sqnr": target_sqnr,
        "optimize": optimize,
        "reduce_range": reduce_range,
    }
    changes: Any = {name: value for name, value in given.items() if value is not None}
    config = dataclasses.replace(as_config(preset), **changes)
    if not out_file.parent.is_dir():  # before minutes of work, not after
        raise ConfigError(f"cannot write {out_file}: there is no folder {out_file.parent}")
    net = load_model(model, weights)
    if weights is None and model.partition(":")[0] in ("torchvision", "timm"):
        err.print("note: no --weights, so the weights are random: good for timing alone")
    images = _images(size, resize, mean, std)
    rank, count = share = _share()
    batches = load_data(data, net, batch_size, samples, images, share)
    if count > 1:
        q = quantize_sharded(net, batches, config=config)
    else:
        q = quantize_model(net, batches, config=config)
    if rank != 0:
        return
    save(q, out_file)
    report = q.report()
    out.print(
        f"{out_file}: {out_file.stat().st_size / 1e6:.2f} MB (was {report.bytes_before / 1e6:.2f}),"
        f" {report.int8_share:.1%} of multiply-adds in int8, "
        f"output SQNR {report.output_sqnr:.1f} dB"
    )


def _share() -> tuple[int, int]:
    """Which of how many processes this is."""
    if not dist.is_torchelastic_launched():
        return 0, 1
    dist.init_process_group("gloo")
    return dist.get_rank(), dist.get_world_size()


@app.command()
def export(
    file: Annotated[Path, typer.Argument(help="A file written by octavo quantize.")],
    out_file: Annotated[Path, typer.Argument(metavar="OUT", help="File to write: .onnx or .xml.")],
) -> None:
    """Write a quantized model as ONNX (.onnx) or OpenVINO IR (.xml and .bin)."""
    export_model(load(file), out_file)
    out.print(f"{out_file}: written")


@app.command()
def report(
    file: Annotated[Path, typer.Argument(help="A file written by octavo quantize.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead.")] = False,
) -> None:
    """Show what became of each operator of a quantized model."""
    found = load(file).report()
    if as_json:
        sys.stdout.write(json.dumps(found.to_dict(), indent=1) + "\n")
    else:
        out.print(found)


@app.command()
def bench(
    model: Model,
    file: Annotated[Path, typer.Argument(help="The quantized model, from octavo quantize.")],
    weights: Weights = None,
    data: Annotated[
        Path | None, typer.Option(help="As in quantize; random inputs without it.")
    ] = None,
    batch_size: BatchSize = 1,
    rounds: Annotated[int, typer.Option(min=1, help="Timed calls of each.")] = 50,
    threads: Annotated[int | None, typer.Option(help="CPU threads [default: all].")] = None,
    by_operator: Annotated[
        bool, typer.Option("--profile", help="Show where the int8 model's time goes as well.")
    ] = False,
    size: Size = 224,
    resize: Resize = None,
    mean: Mean = MEAN,
    std: Std = STD,
) -> None:
    """Compare float PyTorch, float OpenVINO and int8 OpenVINO: latency, size, SQNR."""
    q = load(file)
    net = load_model(model, weights)
    call: Any = None
    if data is not None:
        call = next(load_data(data, net, batch_size, batch_size, _images(size, resize, mean, std)))
    results = compare_engines(net, q, call, batch_size, rounds, threads)
    out.print(bench_table(results, file.stat().st_size, batch_size))
    if by_operator:
        args, kwargs = example_call(net, q, call, batch_size)
        fast = q.compile(threads=torch.get_num_threads())  # as compare_engines set it
        out.print(*profile_tables(profile(fast, *args, rounds=rounds, **kwargs)), sep="\n")


def _images(size: int, resize: int | None, mean: str, std: str) -> ImageOptions:
    means, stds = _numbers("--mean", mean), _numbers("--std", std)
    if len(means) != len(stds) or len(means) not in (1, 3):
        raise ConfigError(f"--mean {mean} and --std {std}: give one number each, or three")
    return ImageOptions(size, resize, means, stds)


def _numbers(option: str, text: str) -> tuple[float, ...]:
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError as e:
        raise ConfigError(f"{option} {text!r}: numbers with commas between them are needed") from e


def _version(show: bool) -> None:
    if show:
        out.print(f"octavo {__version__}, torch {torch.__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    pass


def _show_warning(message: Any, *_: Any, **__: Any) -> None:
    err.print(f"warning: {message}", style="yellow", markup=False, highlight=False)


def main(argv: list[str] | None = None) -> None:
    """Entry point: an error of the user's is one readable message and exit code 2."""
    warnings.filterwarnings("ignore")
    for ours in (CollapseWarning, PartitionWarning):
        warnings.filterwarnings("always", category=ours)
    warnings.showwarning = _show_warning
    try:
        app(args=argv)
    except OctavoError as e:
        err.print(f"error: {e}", style="red", markup=False, highlight=False)
        sys.exit(2)
    except KeyboardInterrupt:
        err.print("interrupted: nothing was written", style="red")
        sys.exit(130)
