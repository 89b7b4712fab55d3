"""How time and memory are measured."""

from __future__ import annotations

import concurrent.futures
import contextlib
import gc
import io
import math
import multiprocessing
import os
import random
import re
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch

THREADS = os.cpu_count() or 1
UNTIMED_CALLS = 3  # at the start of a turn: caches refilled, threads of the turn before asleep

Call = Callable[[], Any]


# ---- time


class Outcome(NamedTuple):
    value: Any = None
    seconds: float = math.nan
    error: str = ""


def attempt(work: Callable[..., Any], *args: Any) -> Outcome:
    """The value of `work(*args)` with the seconds it took, or the error, in one line."""
    start = time.perf_counter()
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            value = work(*args)
    except Exception as e:
        return Outcome(error=error_line(e))
    return Outcome(value, time.perf_counter() - start)


def error_line(error: Exception, lines: int = 1, length: int = 120) -> str:
    """Type and first lines of an error, in one line."""
    texts = [line for line in str(error).strip().splitlines() if line.strip()]
    return f"{type(error).__name__}: {' | '.join(texts[:lines])}"[:length]


def time_alternately(
    calls: Mapping[str, Call], rounds: int, repeats: int
) -> dict[str, list[float]]:
    """Milliseconds of each call: in each round all have a turn of `repeats`, in random order."""
    times: dict[str, list[float]] = {name: [] for name in calls}
    order = random.Random(0)
    gc.collect()
    gc.disable()
    with torch.inference_mode():
        for _ in range(rounds):
            for name in order.sample(list(calls), len(calls)):
                call = calls[name]
                for _ in range(UNTIMED_CALLS):
                    call()
                for _ in range(repeats):
                    start = time.perf_counter()
                    call()
                    times[name].append(1e3 * (time.perf_counter() - start))
    gc.enable()
    return times


# ---- memory, on Linux


def resident_memory() -> float:
    """MB of memory that this process has now."""
    return _memory("VmRSS")


def peak_memory() -> float:
    """The most MB that this process had since `reset_peak_memory`, or since it started."""
    return _memory("VmHWM")


def reset_peak_memory() -> None:
    Path("/proc/self/clear_refs").write_text("5")


def _memory(field: str) -> float:
    found = re.search(rf"{field}:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found is not None
    return int(found[1]) * 1024 / 1e6


# ---- processes


def in_fresh_process(work: Callable[..., Any], *args: Any) -> Any:
    """The value of `work(*args)`, computed in a new process."""
    spawn = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(1, mp_context=spawn) as pool:
        return pool.submit(work, *args).result()
