"""How many threads PyTorch takes: one, where other processes keep the CPU busy.

In thousands of small operators, PyTorch's threads wait for each other after each. A thread that
another process has displaced is waited for by all, several milliseconds each time.
"""

from __future__ import annotations

import contextlib
import statistics
import time
from collections.abc import Iterator

import torch

SIZE = 1 << 20  # numbers of the operator that is timed
ALONE, TOGETHER = 21, 200  # its calls with one thread, and at most with several


@contextlib.contextmanager
def fitting_threads() -> Iterator[None]:
    """Compute with one thread where several would take longer just now; as before afterwards."""
    threads = torch.get_num_threads()
    if threads == 1 or not _is_busy(threads):
        yield
        return
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _is_busy(threads: int) -> bool:
    """Whether a small operator takes longer with several threads than with one, on average.

    With several it should take a fraction; to wait for a displaced thread takes a hundred times as
    long as to compute.
    """
    numbers = torch.ones(SIZE)
    try:
        torch.set_num_threads(1)
        alone = statistics.median(_seconds(numbers) for _ in range(ALONE))
        torch.set_num_threads(threads)
        total = 0.0
        for _ in range(TOGETHER):
            total += _seconds(numbers)
            if total > TOGETHER * alone:  # known before all calls are made
                return True
        return False
    finally:
        torch.set_num_threads(threads)


def _seconds(numbers: torch.Tensor) -> float:
    start = time.perf_counter()
    torch.relu(numbers)
    return time.perf_counter() - start
