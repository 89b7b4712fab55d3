"""Octavo against its peers: latency, time to a ready model, accuracy and memory, in one process.

    pip install -e .[bench]
    python benchmarks/peers.py                               # ten models, batch 1 and 8
    python benchmarks/peers.py resnet18 --batch 1 --peers octavo nncf
    python benchmarks/peers.py --json peers.json --markdown peers.md
    python benchmarks/peers.py --samples docs/samples.svg --json docs/samples.json

Models are torchvision's and bert_base with random weights, see `random_model`: their SQNR compares
the peers, it is not that of trained models. Every peer gets the same samples, inputs and threads
(all cores). Calls alternate: in each round every peer, in random order, is called a few times, so
that whatever else slows the machine down hits all alike. "ready" is the time from the float model
in memory to its first output, imports left out: conversion, calibration, compilation.

With --samples instead: time and peak memory of quantizing resnet50 with 16 to 1,024 images, for
Octavo and NNCF (or --peers), each in a process of its own.
"""

from __future__ import annotations

import argparse
import dataclasses
import gc
import json
import os
import random
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
import torchvision
from peer_models import MODELS, Samples, inputs, random_model
from peer_table import Result, as_line, as_text, machine
from peer_tools import PEERS, Call, Outcome, attempt, first_call, warm_up
from rich import box
from rich.console import Console
from torch import Tensor, nn

import octavo

UNTIMED_CALLS = 3  # at the start of a peer's turn: caches refilled, the last peer's threads asleep


# ---- measuring


def benchmark(name: str, options: argparse.Namespace) -> list[Result]:
    """Every peer's results on one model: prepared once, then timed at each batch size."""
    model, data = random_model(name), list(Samples(name, options.images))
    prepared = {peer: attempt(PEERS[peer].prepare, model, data) for peer in options.peers}
    results: list[Result] = []
    for batch in options.batch:
        x = next(inputs(name, batch, batch, seed=2))
        ready = [make_ready(Result(name, batch, p), o, model, x) for p, o in prepared.items()]
        calls = {result.peer: call for result, call in ready if call is not None}
        times = time_alternately(calls, options.rounds, options.calls)
        for result, call in ready:
            if call is not None:
                result.times_ms = times[result.peer]
                result.median_ms = statistics.median(result.times_ms)
                result.min_ms = min(result.times_ms)
            results.append(result)
    return results


def make_ready(
    result: Result, prepared: Outcome, model: nn.Module, x: Tensor
) -> tuple[Result, Call | None]:
    """Compile for the shape of `x`: the result with all but the times, and the call to time."""
    first = prepared
    if not prepared.error:
        first = attempt(first_call, PEERS[result.peer], prepared.value, x)
    if first.error:
        result.error = first.error
        return result, None
    call, output = first.value
    if prepared.value is not model:
        result.ready_s = prepared.seconds + first.seconds
        with torch.inference_mode():
            result.sqnr_db = octavo.sqnr(model(x), output)
    if isinstance(prepared.value, octavo.QuantizedModel):
        result.octavo_file_mb = file_megabytes(prepared.value)
    return result, call


def file_megabytes(model: octavo.QuantizedModel) -> float:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "model.octavo")
        octavo.save(model, path)
        return path.stat().st_size / 1e6


def time_alternately(calls: dict[str, Call], rounds: int, repeats: int) -> dict[str, list[float]]:
    """Milliseconds of each call, by peer."""
    times: dict[str, list[float]] = {peer: [] for peer in calls}
    order = random.Random(0)
    gc.collect()
    gc.disable()
    with torch.inference_mode():
        for _ in range(rounds):
            for peer in order.sample(list(calls), len(calls)):
                call = calls[peer]
                for _ in range(UNTIMED_CALLS):
                    call()
                for _ in range(repeats):
                    start = time.perf_counter()
                    call()
                    times[peer].append(1e3 * (time.perf_counter() - start))
    gc.enable()
    return times


# ---- the command


def model_name(text: str) -> str:
    if text not in MODELS:
        torchvision.models.get_model_builder(text)  # a ValueError, which argparse tells
    return text


def arguments() -> argparse.Namespace:
    summary, _, usage = (__doc__ or "").partition("\n\n")
    parser = argparse.ArgumentParser(
        description=summary, epilog=usage, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "models", nargs="*", type=model_name, default=MODELS, help="torchvision's, or bert_base"
    )
    parser.add_argument("--batch", nargs="+", type=int, default=[1, 8], help="batch sizes")
    parser.add_argument("--peers", nargs="+", choices=list(PEERS))
    parser.add_argument("--images", type=int, default=32, help="calibration samples")
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--calls", type=int, default=10, help="timed calls of a peer in a round")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="write the tables")
    parser.add_argument(
        "--samples", type=Path, metavar="FILE", help="plot cost by number of samples instead (SVG)"
    )
    options = parser.parse_args()
    options.peers = options.peers or (["octavo", "nncf"] if options.samples else list(PEERS))
    return options


def compare_peers(facts: dict[str, str], options: argparse.Namespace) -> list[Result]:
    console = Console()
    warm_up(options.peers)
    results: list[Result] = []
    for name in options.models:
        with console.status(f"measuring {name}"):
            results += benchmark(name, options)
    print(as_text(facts, results, box.SIMPLE_HEAD, max(console.width, 120)), end="")
    if options.markdown:
        options.markdown.write_text(as_text(facts, results, box.MARKDOWN, 200))
    return results


def compare_samples(facts: dict[str, str], options: argparse.Namespace) -> list[Any]:
    import peer_samples  # here, as it alone needs matplotlib

    print(as_line(facts))
    costs = peer_samples.compare(options.peers)
    peer_samples.plot(costs, options.samples)
    return costs


def main() -> None:
    options, facts = arguments(), machine()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as empty:
        os.environ["TORCHINDUCTOR_CACHE_DIR"] = empty  # what an earlier run compiled is not found
        compare = compare_samples if options.samples else compare_peers
        results = [dataclasses.asdict(r) for r in compare(facts, options)]
    if options.json:
        options.json.write_text(json.dumps({"machine": facts, "results": results}))


if __name__ == "__main__":
    main()
