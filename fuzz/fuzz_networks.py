"""Fuzz Octavo with small random networks: silently wrong numbers, and errors that nobody meant.

    python fuzz/fuzz_networks.py --count 3000 --seed 1 [--jobs 2] [--seconds 600]
    python fuzz/fuzz_networks.py --show 17

Each seed is one network; `--show` prints its source and what is found. Findings go to a file of
JSON lines, the first of each kind with the fewest lines that show it.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO

sys.path.insert(0, str(Path(__file__).parent))
os.environ["OCTAVO_DEBUG"] = "1"  # every stage's graph is verified

from drawn.check import PARTS, check
from drawn.draw import draw
from drawn.pool import results, serve
from drawn.shrink import kind

from octavo.graph.operators import OPERATORS

# Of so many networks, one is checked in it: torch.onnx takes longer than all other parts together.
EVERY = {"onnxruntime": 2, ".onnx": 6, ".xml": 2}
SHRINK = 2  # findings of a kind that are made smaller
RARE = 20  # occurrences of an operator in graphs


class Summary:
    """What came of the networks so far."""

    def __init__(self, out: TextIO) -> None:
        self.out = out
        self.outcomes: Counter[str] = Counter()
        self.kinds: Counter[str] = Counter()
        self.refusals: Counter[str] = Counter()
        self.operators: Counter[str] = Counter()
        self.seconds: Counter[str] = Counter()
        self.noise: dict[str, list[float]] = {}

    def add(self, seed: int, answer: dict[str, Any]) -> list[dict[str, Any]]:
        """Count one network; the findings that are to be made smaller."""
        findings, refusals = answer["findings"], answer.get("refusals", {})
        self.outcomes["finding" if findings else "refused" if refusals else "ok"] += 1
        self.refusals.update(f"{stage}: {kind(what)}" for stage, what in refusals.items())
        self.operators.update(answer.get("operators", {}))
        self.seconds.update(answer.get("seconds", {}))
        for stage, db in answer.get("noise", {}).items():
            self.noise.setdefault(stage, []).append(db)
        wanted = []
        for stage, what in findings.items():
            name = f"{stage}: {kind(what)}"
            self.kinds[name] += 1
            self.write({"seed": seed, "stage": stage, "what": what} | self._program(answer))
            if self.kinds[name] <= SHRINK and stage != "process":
                wanted.append({"seed": seed, "stage": stage, "what": what})
        return wanted

    def write(self, line: dict[str, Any]) -> None:
        self.out.write(json.dumps(line) + "\n")
        self.out.flush()

    def _program(self, answer: dict[str, Any]) -> dict[str, Any]:
        return {k: answer[k] for k in ("source", "sizes") if k in answer}

    def show(self, seconds: float) -> None:
        """Print everything."""
        total = sum(self.outcomes.values())
        print(f"\n{total} networks in {seconds:.0f} s: {dict(self.outcomes)}")
        each = {k: f"{s / total:.2f}" for k, s in self.seconds.most_common(8)}
        print(f"seconds a network: {each}")
        for title, counts in (("findings", self.kinds), ("refusals", self.refusals)):
            print(f"\n{title}:")
            for name, n in counts.most_common(60):
                print(f"{n:6} {name}")
        print("\nnoise, dB at 1, 10 and 50 % of networks:")
        for stage, values in sorted(self.noise.items()):
            ranked = sorted(values)
            cuts = (ranked[int(len(ranked) * p)] for p in (0.01, 0.1, 0.5))
            print(f"  {stage:20} " + " ".join(f"{db:7.1f}" for db in cuts))
        rare = {n: self.operators[n] for n in OPERATORS if self.operators[n] < RARE}
        print(f"\noperators of the table in graphs: {len(OPERATORS)}; fewer than {RARE}: {rare}")
        outside = {n: c for n, c in self.operators.most_common() if n and n not in OPERATORS}
        print(f"others: {outside}", flush=True)


def fuzz(options: argparse.Namespace) -> int:
    """Check networks until there are enough, or the time is over; 1 if anything is found."""
    start = time.monotonic()
    requests: list[dict[str, Any]] = []  # of findings to make smaller: before new networks

    def wanted() -> Iterator[dict[str, Any]]:
        for seed in range(options.seed, options.seed + options.count):
            if options.seconds and time.monotonic() - start > options.seconds:
                return
            while requests:
                yield requests.pop()
            parts = [part for part in PARTS if seed % EVERY.get(part, 1) == 0]
            yield {"seed": seed, "parts": parts}
        while requests:
            yield requests.pop()

    with options.out.open("w") as out:
        summary = Summary(out)
        for request, answer in results(__file__, wanted(), options.jobs):
            if "stage" in request:
                summary.write(request | {"small": answer})
                continue
            requests += summary.add(request["seed"], answer)
            total = sum(summary.outcomes.values())
            if total % 20 == 0:
                took = time.monotonic() - start
                print(f"{total} networks in {took:.0f} s: {dict(summary.outcomes)}", flush=True)
            if total % 500 == 0:
                summary.show(time.monotonic() - start)
        summary.show(time.monotonic() - start)
    return int(bool(summary.kinds))


def show(seed: int) -> int:
    """Print a network and what is found."""
    program = draw(seed)
    outcome = check(program)
    print(program.source(), *program.sizes, program.dtype, "", sep="\n")
    for title in ("findings", "refusals", "noise"):
        print(f"{title}:", *getattr(outcome, title).items(), sep="\n  ")
    return int(bool(outcome.findings))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--count", type=int, default=3000)
    parser.add_argument("--seed", type=int, default=1, help="of the first network")
    parser.add_argument("--jobs", type=int, default=1, help="processes")
    parser.add_argument("--seconds", type=float, default=0, help="stop after so long")
    parser.add_argument("--out", type=Path, default=Path("findings.jsonl"))
    parser.add_argument("--show", type=int, metavar="SEED", help="one network only")
    parser.add_argument("--work", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.work:
        serve()
        return 0
    return fuzz(options) if options.show is None else show(options.show)


if __name__ == "__main__":
    sys.exit(main())
