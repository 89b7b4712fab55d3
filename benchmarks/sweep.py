"""Sweep: does every architecture quantize, run on both engines, and stay accurate?

    pip install -e .[bench]
    python benchmarks/sweep.py                          # all, two at a time; half an hour
    python benchmarks/sweep.py 'timm:*' LSTM --jobs 4
    python benchmarks/sweep.py --json sweep.json --markdown docs/coverage.md

Each architecture of `architectures.py` runs in a process of its own with a time limit: quantized
on 8 random inputs, saved and loaded for OpenVINO, then called with another batch size (and length
of sequence) on both engines.
SQNR is against the float model on inputs that calibration did not see; weights are random.
"int8" is the share of multiply-adds of convolutions, linear layers and matrix products.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import dataclasses
import fnmatch
import inspect
import json
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

import octavo


@dataclasses.dataclass
class Result:
    """What became of one architecture; None where it did not come to that."""

    name: str
    step: str = "build"  # the last that was begun; "done" at the end
    error: str = ""
    int8_share: float | None = None
    sqnr_db: float | None = None
    engines_db: float | None = None
    seconds: float | None = None
    warned: str = ""
    float_sites: dict[str, int] = dataclasses.field(default_factory=dict)


def examine(name: str) -> Result:
    """All steps for one architecture, up to the first that fails."""
    from architectures import ARCHITECTURES, settle

    result, case = Result(name), ARCHITECTURES[name]
    try:
        with torch.no_grad():
            steps(result, case, settle)
    except Exception as e:
        lines = [line for line in str(e).strip().splitlines() if line.strip()]
        result.error = f"{type(e).__name__}: {' | '.join(lines[:3])}"[:400]
    return result


def steps(result: Result, case: Any, settle: Any) -> None:
    torch.manual_seed(0)
    model = settle(case.build(), case.inputs)
    result.step = "quantize"
    start = time.perf_counter()
    calls = [case.inputs(4, 10), case.inputs(4, 11, case.length)]
    quantized = quantize(model, calls, result)
    result.seconds = time.perf_counter() - start
    report = quantized.report()
    result.int8_share = report.int8_share
    floats = (f"{r.operator}: {r.reason}" for r in report.rows if r.precision == "float")
    result.float_sites = dict(Counter(floats))
    result.step = "file"
    fast = from_file(quantized).compile()
    for batch, length in ((3, 0), *([(3, case.length)] if case.length else [])):
        args, kwargs = case.inputs(batch, 20, length)
        length = length and length + 3
        result.step = "another length" if length else "reference"
        expected, got = model(*args, **kwargs), quantized(*args, **kwargs)
        db = octavo.sqnr(expected, got)
        result.sqnr_db = min(db, result.sqnr_db) if length else db
        result.step = "another length" if length else "openvino"
        result.engines_db = octavo.sqnr(got, fast(*args, **kwargs))
    result.step = "done"


def quantize(model: Any, calls: list, result: Result) -> octavo.QuantizedModel:
    """Quantize with calls by position or, where some inputs go by keyword, by name."""
    names = list(inspect.signature(model.forward).parameters)
    by_name = [dict(zip(names, args, strict=False)) | kwargs for args, kwargs in calls]
    data = by_name if calls[0][1] else [args for args, _ in calls]
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        quantized = octavo.quantize(model, data, progress=False)
    ours = [str(w.message) for w in caught if issubclass(w.category, octavo.CollapseWarning)]
    result.warned = " ".join(ours)
    return quantized


def from_file(quantized: octavo.QuantizedModel) -> octavo.QuantizedModel:
    """The model, saved and loaded."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "model.octavo")
        octavo.save(quantized, path)
        return octavo.load(path)


# ---- many, each in a process of its own


def in_process(name: str, seconds: float) -> Result:
    """`examine(name)` in a new process; one that dies or takes too long has an error."""
    command = [sys.executable, __file__, "--one", name]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=seconds)
    except subprocess.TimeoutExpired:
        return Result(name, error=f"took more than {seconds:g} s")
    last = done.stdout.strip().splitlines()[-1:]
    if done.returncode or not last:
        return Result(name, error=f"died with {done.returncode}: {done.stderr.strip()[-200:]}")
    return Result(**json.loads(last[0]))


def sweep(names: list[str], jobs: int, seconds: float) -> Iterator[Result]:
    with concurrent.futures.ThreadPoolExecutor(jobs) as pool:
        waiting = [pool.submit(in_process, name, seconds) for name in names]
        for future in concurrent.futures.as_completed(waiting):
            yield future.result()


# ---- telling


def line(r: Result) -> str:
    """One row of the table."""
    figures = [number(r.int8_share, 100, "%"), number(r.sqnr_db), number(r.engines_db)]
    note = f"{r.step}: {r.error}" if r.error else ""
    if not note and low(r):
        note = r.warned or "; ".join(f"{n} x {site}" for site, n in r.float_sites.items())
    cells = [r.name, *figures, number(r.seconds), note.replace("|", "/")]
    return f"| {' | '.join(cells)} |"


def number(value: float | None, factor: float = 1, unit: str = "") -> str:
    return "" if value is None else f"{factor * value:.1f}{unit}"


def low(r: Result) -> bool:
    return r.sqnr_db is not None and r.sqnr_db < 20


def summary(results: list[Result]) -> str:
    """Counts and medians over all architectures."""
    done = [r for r in results if r.step == "done"]
    captured = [r for r in results if not r.error.startswith(("CaptureError", "took"))]
    shares = [r.int8_share for r in done if r.int8_share is not None]
    agree = [r.engines_db for r in done if r.engines_db is not None]
    lines = [
        f"{len(results)} architectures, {len(captured)} captured, {len(done)} quantized and run "
        f"on both engines; {sum(not low(r) for r in done)} of them at 20 dB or more.",
    ]
    if done:
        lines.append(
            f"Median: {100 * statistics.median(shares):.1f}% of multiply-adds in int8, "
            f"{statistics.median(r.sqnr_db for r in done):.1f} dB against float, "
            f"{statistics.median(agree):.1f} dB between the engines."
        )
    return "\n".join(lines)


HEAD = """| architecture | int8 | dB to float | dB between engines | quantize s | note |
|---|---|---|---|---|---|"""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("patterns", nargs="*", default=["*"], help="names, with * and ?")
    parser.add_argument("--one", metavar="NAME", help="in this process, one line of JSON")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--limit", type=float, default=240, help="seconds for each")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--markdown", type=Path)
    options = parser.parse_args()
    if options.one:
        torch.set_num_threads(1)
        print(json.dumps(dataclasses.asdict(examine(options.one))))
        return
    from architectures import ARCHITECTURES

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
        table = "\n".join([HEAD, *map(line, results)])
        options.markdown.write_text(f"{summary(results)}\n\n{table}\n")


if __name__ == "__main__":
    main()
