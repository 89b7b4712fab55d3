"""Compiled models under load: eight threads, batch sizes mixed, every result checked.

    pip install -e .[demo]
    python benchmarks/serving.py --markdown docs/serving-table.md

The Fashion-MNIST resnet of examples/, quantized with the defaults, serves 8 x 10,000 calls on test
images, for each engine and hint: from threads that wait for each answer, and through `submit`. A
result counts as wrong if it differs from what one thread alone got. Memory is the resident set
before the load, half way through, and after it.
"""

from __future__ import annotations

import argparse
import os
import random
import statistics
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import Any, NamedTuple

import torch
from peer_table import as_line, machine
from rich import box
from rich.console import Console
from rich.table import Table
from torch import Tensor

import octavo

sys.path.insert(0, str(Path(__file__).parent.parent / "examples"))
from fashion import nets

SIZES = (1, 2, 3, 4, 6, 8, 12, 16)
IN_FLIGHT = 16  # of `submit`, before the oldest is waited for


class Load(NamedTuple):
    """What one load showed: times in ms, memory in MB."""

    seconds: float
    times: list[float]
    images: int
    wrong: int
    memory: tuple[float, float, float]


def resident() -> float:
    """MB of this process in memory."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


def from_threads(fast: Callable[..., Any], inputs: list[Tensor], threads: int, calls: int) -> Load:
    """Each thread calls and waits, `calls` times."""
    expected = [fast(x) for x in inputs]
    times: list[float] = []
    wrong: list[int] = []
    images: list[int] = []
    half = threading.Barrier(threads + 1)

    def work(seed: int) -> None:
        order = random.Random(seed)
        mine, served, bad = [], 0, 0
        for n in range(calls):
            if n == calls // 2:
                half.wait()
            i = order.randrange(len(inputs))
            start = time.perf_counter()
            result = fast(inputs[i])
            mine.append(1e3 * (time.perf_counter() - start))
            bad += not torch.equal(result, expected[i])
            served += len(inputs[i])
        times.extend(mine)
        wrong.append(bad)
        images.append(served)

    before, start = resident(), time.perf_counter()
    workers = [threading.Thread(target=work, args=(i,)) for i in range(threads)]
    for w in workers:
        w.start()
    half.wait()
    middle = resident()
    for w in workers:
        w.join()
    seconds = time.perf_counter() - start
    return Load(seconds, times, sum(images), sum(wrong), (before, middle, resident()))


def submitted(fast: Any, inputs: list[Tensor], threads: int, calls: int) -> Load:
    """One thread submits; so many are in flight that all CPUs have work."""
    expected = [fast(x) for x in inputs]
    order, total = random.Random(0), threads * calls
    waiting: list[tuple[int, float, Future[Any]]] = []
    times: list[float] = []
    wrong = images = 0
    before, middle, start = resident(), 0.0, time.perf_counter()
    for n in range(total + IN_FLIGHT):
        if n == total // 2:
            middle = resident()
        if n < total:
            i = order.randrange(len(inputs))
            waiting.append((i, time.perf_counter(), fast.submit(inputs[i])))
            images += len(inputs[i])
        if n >= IN_FLIGHT:
            i, begun, future = waiting.pop(0)
            wrong += not torch.equal(future.result(), expected[i])
            times.append(1e3 * (time.perf_counter() - begun))
    seconds = time.perf_counter() - start
    return Load(seconds, times, images, wrong, (before, middle, resident()))


def row(name: str, load: Load) -> list[str]:
    cuts = statistics.quantiles(load.times, n=100)
    figures = (load.images / load.seconds, statistics.median(load.times), cuts[98])
    memory = " / ".join(f"{m:.0f}" for m in load.memory)
    rate, median, late = figures
    checked = f"{load.wrong} of {len(load.times):,}"
    return [name, f"{rate:,.0f}", f"{median:.2f}", f"{late:.2f}", checked, memory]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--threads", type=int, default=8)
    parser.add_argument("--calls", type=int, default=10_000, help="of each thread")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="write the table")
    options = parser.parse_args()
    q = octavo.quantize(nets.load("resnet"), nets.data("calib", 512)[0].split(16))
    test, _ = nets.data("test", 1000)
    inputs = [test[i * 100 : i * 100 + n] for i in range(4) for n in SIZES]
    table = Table(box=box.MARKDOWN)
    columns = "served by,images / s,median ms,99 % ms,wrong,MB before / half way / after"
    for i, column in enumerate(columns.split(",")):
        table.add_column(column, justify="right" if i else "left")
    console = Console(width=140)
    for name, engine, settings in (
        ("openvino, latency", "openvino", {"hint": "latency"}),
        ("openvino, throughput", "openvino", {"hint": "throughput"}),
        ("onnxruntime", "onnxruntime", {}),
        ("torch_int8", "torch_int8", {}),
    ):
        fast = q.compile(engine, **settings)
        load = from_threads(fast, inputs, options.threads, options.calls)
        table.add_row(*row(f"{name}, {options.threads} threads", load))
        if hasattr(fast, "submit"):
            load = submitted(fast, inputs, options.threads, options.calls)
            table.add_row(*row(f"{name}, submit", load))
        console.print(table)
    if options.markdown:
        with options.markdown.open("w") as file:
            print(as_line(machine()), file=file)
            Console(file=file, width=140).print(table)


if __name__ == "__main__":
    main()
