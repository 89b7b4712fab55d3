"""Sweep: does every architecture quantize, run on both engines, and stay accurate?

    pip install -e .[bench]
    python -m benchmarks.sweep                          # all, two at a time; half an hour
    python -m benchmarks.sweep 'timm:*' LSTM --jobs 4
    python -m benchmarks.sweep --json sweep.json --markdown docs/coverage.md

Each architecture of `architectures.py` runs in a process of its own with a time limit: quantized
on 8 random inputs at batches of 4, saved and loaded for OpenVINO, then called with batches of 3
and 1 (the second of another length, if it takes sequences) on both engines. The SQNR is the lower
of the two.
SQNR is against the float model on inputs that calibration did not see; weights are random.
"int8" is the share of multiply-adds of convolutions, linear layers and matrix products.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import dataclasses
import fnmatch
import json
import subprocess
import sys
from collections.abc import Iterator

import torch

from ..command_line import add_json, add_markdown, make_parser
from ..examples import ROOT
from .results import Result, as_markdown, line, summary

# Architectures are imported late: they need timm and transformers, and the help does not.


def in_process(name: str, seconds: float) -> Result:
    """`examine(name)` in a new process; one that dies or takes too long has an error."""
    command = [sys.executable, "-m", "benchmarks.sweep", "--one", name]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=seconds, cwd=ROOT)
    except subprocess.TimeoutExpired:
        return Result(name, error=f"took more than {seconds:g} s")
    last = done.stdout.strip().splitlines()[-1:]
    if done.returncode or not last:
        return Result(name, error=f"died with {done.returncode}: {done.stderr.strip()[-200:]}")
    return Result(**json.loads(last[0]))


def sweep(names: list[str], jobs: int, seconds: float) -> Iterator[Result]:
    """Results as they come."""
    with concurrent.futures.ThreadPoolExecutor(jobs) as pool:
        running = [pool.submit(in_process, name, seconds) for name in names]
        for future in concurrent.futures.as_completed(running):
            yield future.result()


def print_one(name: str) -> None:
    """Examine an architecture in this process and print the result as one line of JSON."""
    from .examine import examine

    torch.set_num_threads(1)
    print(json.dumps(dataclasses.asdict(examine(name))))


def make_arguments() -> argparse.ArgumentParser:
    parser = make_parser("benchmarks.sweep", __doc__)
    parser.add_argument("patterns", nargs="*", default=["*"], help="names, with * and ?")
    parser.add_argument("--one", metavar="NAME", help="in this process, one line of JSON")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--limit", type=float, default=240, help="seconds for each")
    add_json(parser)
    add_markdown(parser)
    return parser


def main() -> None:
    parser = make_arguments()
    options = parser.parse_args()
    if options.one:
        return print_one(options.one)
    from .architectures import ARCHITECTURES

    names = [n for n in ARCHITECTURES if any(fnmatch.fnmatch(n, p) for p in options.patterns)]
    if not names:
        parser.error(f"no architecture matches {' '.join(options.patterns)}")
    results = []
    for result in sweep(names, options.jobs, options.limit):
        results.append(result)
        print(line(result), flush=True)
    results.sort(key=lambda r: names.index(r.name))
    print(summary(results))
    if options.json:
        options.json.write_text(json.dumps([dataclasses.asdict(r) for r in results], indent=1))
    if options.markdown:
        options.markdown.write_text(as_markdown(results))
    return None


if __name__ == "__main__":
    main()
