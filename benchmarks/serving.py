"""Compiled models under load: eight threads, batch sizes mixed, every result checked.

    pip install -e .[demo,onnx]
    python -m benchmarks.serving --markdown docs/serving-table.md

The Fashion-MNIST resnet of examples/, quantized with the defaults, serves 8 x 10,000 calls on test
images, for each engine and hint: from threads that wait for each answer, and through `submit`. A
result counts as wrong if it differs from what one thread alone got. Memory is the resident set
before the load, half way through, and after it. For Linux.
"""

from __future__ import annotations

import random
import statistics
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, NamedTuple

import torch
from rich.console import Console
from torch import Tensor

import octavo

from . import examples
from .command_line import add_markdown, make_parser
from .measuring import resident_memory
from .output import WIDTH, as_text, machine, make_table, write_page

SIZES = (1, 2, 3, 4, 6, 8, 12, 16)
IN_FLIGHT = 16  # of `submit`, before the oldest is waited for
COLUMNS = ["served by", "images / s", "median ms", "99 % ms", "wrong"]
COLUMNS += ["MB before / half way / after"]
# name in the table, name for `compile`, its settings
ENGINES: tuple[tuple[str, str, dict[str, str]], ...] = (
    ("openvino, latency", "openvino", {"hint": "latency"}),
    ("openvino, throughput", "openvino", {"hint": "throughput"}),
    ("onnxruntime", "onnxruntime", {}),
    ("torch_int8", "torch_int8", {}),
)


class Load(NamedTuple):
    """What was measured under one load: times in ms, memory in MB."""

    seconds: float
    times: list[float]
    images: int
    wrong: int
    memory: tuple[float, float, float]


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

    before, start = resident_memory(), time.perf_counter()
    workers = [threading.Thread(target=work, args=(i,)) for i in range(threads)]
    for w in workers:
        w.start()
    half.wait()
    middle = resident_memory()
    for w in workers:
        w.join()
    seconds = time.perf_counter() - start
    return Load(seconds, times, sum(images), sum(wrong), (before, middle, resident_memory()))


def submitted(fast: Any, inputs: list[Tensor], threads: int, calls: int) -> Load:
    """One thread submits; so many are in flight that all CPUs have work."""
    expected = [fast(x) for x in inputs]
    order, total = random.Random(0), threads * calls
    running: list[tuple[int, float, Future[Any]]] = []
    times: list[float] = []
    wrong = images = 0
    before, middle, start = resident_memory(), 0.0, time.perf_counter()
    for n in range(total + IN_FLIGHT):
        if n == total // 2:
            middle = resident_memory()
        if n < total:
            i = order.randrange(len(inputs))
            running.append((i, time.perf_counter(), fast.submit(inputs[i])))
            images += len(inputs[i])
        if n >= IN_FLIGHT:
            i, begun, future = running.pop(0)
            wrong += not torch.equal(future.result(), expected[i])
            times.append(1e3 * (time.perf_counter() - begun))
    seconds = time.perf_counter() - start
    return Load(seconds, times, images, wrong, (before, middle, resident_memory()))


def row(name: str, load: Load) -> list[str]:
    return [
        name,
        f"{load.images / load.seconds:,.0f}",
        f"{statistics.median(load.times):.2f}",
        f"{statistics.quantiles(load.times, n=100)[98]:.2f}",
        f"{load.wrong} of {len(load.times):,}",
        " / ".join(f"{m:.0f}" for m in load.memory),
    ]


def main() -> None:
    parser = make_parser("benchmarks.serving", __doc__)
    parser.add_argument("--threads", type=int, default=8)
    parser.add_argument("--calls", type=int, default=10_000, help="of each thread")
    add_markdown(parser)
    options = parser.parse_args()
    nets = examples.fashion_mnist()
    q = octavo.quantize(nets.load("resnet"), nets.data("calib", 512)[0].split(16))
    test, _ = nets.data("test", 1000)
    inputs = [test[i * 100 : i * 100 + n] for i in range(4) for n in SIZES]
    table, console = make_table(COLUMNS), Console(width=WIDTH)
    for name, engine, settings in ENGINES:
        fast = q.compile(engine, **settings)
        load = from_threads(fast, inputs, options.threads, options.calls)
        table.add_row(*row(f"{name}, {options.threads} threads", load))
        if hasattr(fast, "submit"):
            load = submitted(fast, inputs, options.threads, options.calls)
            table.add_row(*row(f"{name}, submit", load))
        console.print(table)
    write_page(options.markdown, as_text(table), machine())


if __name__ == "__main__":
    main()
