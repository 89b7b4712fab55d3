"""Networks checked in other processes: one that crashes or hangs is a finding, and work goes on."""

from __future__ import annotations

import dataclasses
import itertools
import json
import os
import select
import subprocess
import sys
import threading
from collections.abc import Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from typing import Any

SECONDS = 240  # a network that takes longer hangs
UNWRITTEN = {"MALLOC_PERTURB_": "140"}  # glibc: large numbers in memory that no kernel wrote
NETWORKS = 150  # a process ends after as many, since compiled models leave memory behind


class Worker:
    """A process that checks one network after another."""

    def __init__(self, script: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, script, "--work"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=os.environ | UNWRITTEN,
        )
        self.done = 0

    def ask(self, request: dict[str, Any]) -> dict[str, Any]:
        """The answer to one request; "crashed" or "hangs" among its findings if there is none."""
        assert self.process.stdin and self.process.stdout
        self.done += 1
        try:
            self.process.stdin.write(json.dumps(request).encode() + b"\n")
            self.process.stdin.flush()
        except BrokenPipeError:
            return {"findings": {"process": "crashed before"}}
        if not select.select([self.process.stdout], [], [], SECONDS)[0]:
            self.close()
            return {"findings": {"process": f"hangs: no answer in {SECONDS} s"}}
        line = self.process.stdout.readline()
        if not line:
            return {"findings": {"process": f"crashed with exit code {self.process.wait()}"}}
        return json.loads(line)

    @property
    def usable(self) -> bool:
        return self.process.poll() is None and self.done < NETWORKS

    def close(self) -> None:
        self.process.kill()
        self.process.communicate()


def results(
    script: str, requests: Iterable[dict[str, Any]], jobs: int
) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    """(request, answer) as they come, from as many processes as `jobs`."""
    local = threading.local()
    workers: list[Worker] = []

    def work(request: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
        worker = getattr(local, "worker", None)
        if worker is None or not worker.usable:
            if worker is not None:
                worker.close()
            worker = local.worker = Worker(script)
            workers.append(worker)
        return request, worker.ask(request)

    requests = iter(requests)  # which may depend on the answers so far
    running: set[Future[Any]] = set()
    with ThreadPoolExecutor(jobs) as threads:
        try:
            while True:
                more = itertools.islice(requests, jobs - len(running))
                running |= {threads.submit(work, request) for request in more}
                if not running:
                    return
                done, running = wait(running, return_when=FIRST_COMPLETED)
                yield from (future.result() for future in done)
        finally:
            for worker in workers:
                worker.close()


def serve() -> None:
    """Answer requests from stdin until it ends; what libraries print goes nowhere."""
    from .check import check
    from .draw import draw
    from .shrink import shrunk

    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    for line in sys.stdin:
        request = json.loads(line)
        program = draw(request["seed"])
        if "stage" in request:
            small, what = shrunk(program, request["stage"], request["what"])
            answer = {"what": what, "source": small.source(), "sizes": _sizes(small)}
            answer |= {"operators": [s.operator for s in small.live()], "dtype": small.dtype}
        else:
            answer = vars(check(program, request["parts"]))
            del answer["own"]
            answer |= {"source": program.source(), "sizes": _sizes(program)}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


def _sizes(program: Any) -> list[dict[str, int]]:
    return [dataclasses.asdict(s) for s in program.sizes]
