"""How many threads PyTorch takes: one, where other processes keep the CPU busy.

In thousands of small operators, PyTorch's threads wait for each other after each. A thread that
another process has displaced is waited for by all, several milliseconds each time.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator

import torch

SIZE, CALLS, ROUNDS = 1 << 18, 40, 3  # numbers of a small operator, its calls, measurements
SLOWER = 1.1  # of the time of one thread: with several it should be about half


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
    """Whether small operators take longer with several threads than with one."""
    numbers, found = torch.ones(SIZE), dict[int, list[float]]({1: [], threads: []})
    try:
        for _ in range(ROUNDS):
            for count, seconds in found.items():
                torch.set_num_threads(count)
                torch.relu(numbers)
                start = time.perf_counter()
                for _ in range(CALLS):
                    torch.relu(numbers)
                seconds.append(time.perf_counter() - start)
    finally:
        torch.set_num_threads(threads)
    one, several = (sorted(found[count])[ROUNDS // 2] for count in (1, threads))
    return several > SLOWER * one
