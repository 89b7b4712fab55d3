"""`octavo bench`: how fast and how accurate a quantized model is."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import torch
import typer

from ..bench import bench_table, compare_engines, example_call, profile, profile_tables
from ..capture.images import alike
from ..io.file import load
from ..progress import working
from .data import ImageOptions, load_data
from .options import (
    BatchSize,
    Json,
    Model,
    Quantized,
    Rounds,
    Threads,
    Weights,
    loaded,
    out,
    takes_images,
)


@takes_images
def bench(
    model: Model,
    file: Quantized,
    weights: Weights = None,
    data: Annotated[
        Path | None, typer.Option(help="As in quantize; random inputs without it.")
    ] = None,
    batch_size: BatchSize = 1,
    rounds: Rounds = 50,
    threads: Threads = None,
    as_json: Json = False,
    by_operator: Annotated[
        bool, typer.Option("--profile", help="Also show the time of each operator in int8.")
    ] = False,
    *,
    images: ImageOptions,
) -> None:
    """Compare float with int8 in every engine that is installed: latency, size, SQNR.

    For example: octavo bench torchvision:resnet50 resnet50.octavo --profile
    """
    q = load(file)
    net = alike(loaded(model, weights), q)
    call: Any = None
    if data is not None:
        images = images.for_model(q.signature)
        call = next(load_data(data, net, batch_size, batch_size, images))
    with working("compiling and timing"):
        results = compare_engines(net, q, call, batch_size, rounds, threads)
    if as_json:
        sys.stdout.write(json.dumps([r.to_dict() for r in results], indent=1) + "\n")
        return
    out.print(bench_table(results, file.stat().st_size, batch_size))
    if by_operator:
        args, kwargs = example_call(net, q, call, batch_size)
        fast = q.compile(threads=torch.get_num_threads())  # as compare_engines set it
        out.print(*profile_tables(profile(fast, *args, rounds=rounds, **kwargs)), sep="\n")
