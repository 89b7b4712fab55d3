"""Octavo beside its peers: latency, time until ready, SQNR and memory, in one process.

    pip install -e .[bench]
    python -m benchmarks.peers                               # ten models, batch 1 and 8
    python -m benchmarks.peers resnet18 --batch 1 --peers octavo nncf
    python -m benchmarks.peers --json peers.json --markdown peers.md
    python -m benchmarks.peers --samples docs/samples.svg --json docs/samples.json

Models are torchvision's and bert_base with random weights, see `random_models.py`: their SQNR
compares the peers, it is not that of trained models. Every peer gets the same samples, inputs and
threads (all cores). Calls alternate: in each round every peer, in random order, is called a few
times, so that whatever else slows the machine down affects all of them. "ready" is the time from
the float model in memory to its first output: conversion, calibration, compilation; imports are
excluded.

With --samples instead: time and peak memory of quantizing resnet50 with 16 to 1,024 images, for
Octavo and NNCF (or --peers), each in a process of its own.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console

from ..command_line import add_json, add_markdown, add_peers, make_parser
from ..output import as_line, machine, write_json, write_page
from ..random_models import add_models
from .compare import compare
from .frameworks import PEERS, warm_up
from .results import Result, results_text


def arguments() -> argparse.Namespace:
    parser = make_parser("benchmarks.peers", __doc__)
    add_models(parser)
    parser.add_argument("--batch", nargs="+", type=int, default=[1, 8], help="batch sizes")
    add_peers(parser, PEERS)
    parser.add_argument("--images", type=int, default=32, help="calibration samples")
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--calls", type=int, default=10, help="timed calls of a peer in a round")
    add_json(parser)
    add_markdown(parser)
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
            results += compare(
                name,
                options.peers,
                batches=options.batch,
                samples=options.images,
                rounds=options.rounds,
                calls=options.calls,
            )
    print(as_line(facts), results_text(results, box.SIMPLE_HEAD), sep="\n", end="")
    write_page(options.markdown, results_text(results, box.MARKDOWN), facts)
    return results


def compare_numbers_of_samples(facts: dict[str, str], options: argparse.Namespace) -> list[Any]:
    from . import samples  # here, as only this needs matplotlib

    print(as_line(facts))
    costs = samples.compare(options.peers)
    samples.plot(costs, options.samples)
    return costs


def main() -> None:
    options, facts = arguments(), machine()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as empty:
        os.environ["TORCHINDUCTOR_CACHE_DIR"] = empty  # so that nothing compiled before is reused
        run = compare_numbers_of_samples if options.samples else compare_peers
        write_json(options.json, facts, run(facts, options))


if __name__ == "__main__":
    main()
