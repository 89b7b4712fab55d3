"""Two source trees of Octavo: do they make the same of every network, in the same time and memory?

    pip install -e .[bench,demo]
    python -m benchmarks.equivalence BEFORE AFTER          # from the repository's root
    python -m benchmarks.equivalence BEFORE AFTER --only 'fashion-*' lstm --time

For a change that is to lose nothing. BEFORE and AFTER are checkouts, each with its `src`; the
networks are those of `equivalence_nets.py`. Each network is quantized by two fresh processes, one
for each tree, at the same time and with one thread each, so that whatever else slows the machine
down hits both alike.

Compared, in the order of the quantized graph and whatever its nodes and tensors are called: its
operators and what each reads, integers and scales of weights, ranges of activations, constants,
the report, warnings, and what the graph computes of inputs that calibration did not see. SQNRs may
differ by a millionth, all else not at all. Where a text is worded otherwise it is listed, but is no
difference. MB is the most memory the process had while it quantized. With --time the two
compiled models are called in turns, and what they compute is compared as well.

Exits with 1 if any network differs.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import dataclasses
import faulthandler
import fnmatch
import functools
import gc
import hashlib
import importlib.util
import json
import math
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from rich import box
from rich.console import Console
from rich.table import Table
from torch import Tensor, fx, nn
from torch.utils._pytree import tree_leaves

from .equivalence_nets import CASES, ROOT, Case

LIMIT = 1800.0  # seconds that a process may take
ROUNDS, CALLS, UNTIMED, THREADS = 8, 30, 5, 2  # of timing: calls in a turn, threads of OpenVINO
INEXACT = {"sqnr", "output_sqnr", "before", "after"}  # fields of the report, in dB
WORDED = {"reason", "method"}  # fields that are texts for people

Fact = tuple[str, str, Any]  # of what kind, where it was found, the value


# ---- in a process of its own: quantize one network and tell what became of it


def quantize_one(name: str, file: str, source: str) -> None:
    """Write what the network became to `file`; print seconds and memory; time it when told to."""
    faulthandler.dump_traceback_later(LIMIT, exit=True)
    import octavo

    if not Path(octavo.__file__).is_relative_to(source):
        raise RuntimeError(f"octavo comes from {octavo.__file__}, not from {source}")
    case = CASES[name]
    with torch.no_grad(), contextlib.redirect_stdout(sys.stderr):
        octavo.quantize(nn.Linear(4, 2), torch.rand(8, 4))  # imports what is imported when needed
        net = case.network()
        data = case.data(net)
        torch.set_num_threads(1)  # whatever the network's own module has set
        torch.manual_seed(1)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            quantized, cost = measured(lambda: case.quantize(net, data))
        torch.save([*all_facts(quantized, case), *warning_facts(caught)], file)
        print(json.dumps(cost), file=sys.__stdout__, flush=True)
        answer_requests(quantized, case)


def measured(work: Callable[[], Any]) -> tuple[Any, dict[str, float]]:
    """What `work` returns, its seconds and the most memory that the process had meanwhile."""
    gc.collect()
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)  # glibc: what making the network left free goes back
        Path("/proc/self/clear_refs").write_text("5")  # Linux: forget the peak until now
    start = time.perf_counter()
    result = work()
    return result, {"seconds": time.perf_counter() - start, "peak_mb": peak_memory()}


def peak_memory() -> float:
    """MB; where the system does not tell it from a point on, since the process started."""
    with contextlib.suppress(OSError, StopIteration):
        lines = Path("/proc/self/status").read_text().splitlines()
        return int(next(x for x in lines if x.startswith("VmHWM")).split()[1]) * 1024 / 1e6
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6


def answer_requests(quantized: Any, case: Case) -> None:
    """For each line read, print the ms of a turn of calls, compiled, and a digest of outputs."""
    compiled = None
    args, kwargs = case.inputs(1, 8)
    for _ in sys.stdin:
        graph = isinstance(quantized, fx.GraphModule)  # it has no engine
        compiled = compiled or (quantized if graph else quantized.compile(threads=THREADS))
        times = []
        for _ in range(UNTIMED + CALLS):
            start = time.perf_counter()
            outputs = compiled(*args, **kwargs)
            times.append(1e3 * (time.perf_counter() - start))
        found = b"".join(t.numpy().tobytes() for t in tensors(outputs))
        answer = {"times_ms": times[UNTIMED:], "digest": hashlib.sha256(found).hexdigest()}
        print(json.dumps(answer), file=sys.__stdout__, flush=True)


def tensors(values: Any) -> list[Tensor]:
    return [t for t in tree_leaves(values) if isinstance(t, Tensor)]


# ---- what became of a network, as facts


def all_facts(quantized: Any, case: Case) -> Iterator[Fact]:
    """Of a quantized model, of a model with quantized parts, or of a mere graph."""
    parts = getattr(quantized, "parts", {"": quantized})
    for path, part in parts.items():
        module = part if isinstance(part, fx.GraphModule) else part.graph_module
        yield from graph_facts(module, f"{path} " if path else "")
        if module is not part:
            yield from report_facts(part.report().to_dict(), path)
    args, kwargs = case.inputs(5, 7)
    for i, value in enumerate(tensors(quantized(*args, **kwargs))):
        yield "outputs", f"output {i}", value.clone()


def graph_facts(module: fx.GraphModule, part: str) -> Iterator[Fact]:
    """In the graph's order, with numbers for names; a name only tells a reader where."""
    numbers: dict[fx.Node, str] = {}
    for node in module.graph.nodes:
        if node.op == "get_attr":
            continue
        where = f"{part}#{len(numbers)} {node.name}"
        numbers[node] = f"#{len(numbers)}"
        operator = operator_name(node)
        yield "operators", where, operator
        reads, leaves = [], tree_leaves((node.args, sorted(node.kwargs.items())))
        weight = isinstance(leaves[0], fx.Node) and leaves[0].op == "get_attr" if leaves else False
        for i, leaf in enumerate(leaves):
            if isinstance(leaf, fx.Node) and leaf.op == "get_attr":
                value = functools.reduce(getattr, str(leaf.target).split("."), module)
                if isinstance(value, fx.GraphModule):
                    yield from graph_facts(value, f"{where} ")
                    continue
                yield tensor_kind(operator, i, weight), f"{where}, argument {i}", value.clone()
            else:
                reads.append(numbers[leaf] if isinstance(leaf, fx.Node) else str(leaf))
        yield "arguments", where, " ".join(reads)


def operator_name(node: fx.Node) -> str:
    """What a node does; the library's identities, whatever they are called, are one."""
    target: Any = node.target
    if node.op != "call_function":
        return f"{node.op} {target}" if node.op.startswith("call") else node.op
    overload = isinstance(target, torch._ops.OpOverload)
    target = str(target) if overload else f"{target.__module__}.{target.__qualname__}"
    known = ("octavo.quantize.", "octavo.dequantize.")
    own = target.startswith("octavo.") and not target.startswith(known)
    return "octavo.identity" if own else target


def tensor_kind(operator: str, position: int, weight: bool) -> str:
    """What the tensor is to an operator that has it as an argument."""
    if operator.startswith("octavo.dequantize.") and weight:
        return "weight scales" if position else "int8 weights"
    return "activation ranges" if operator.startswith("octavo.") else "constants"


def report_facts(report: Any, where: str, key: str = "") -> Iterator[Fact]:
    """Every number and text of a report, and how many there are of what is in lists."""
    if isinstance(report, dict):
        yield "report", where, " ".join(sorted(report))
        for k, value in sorted(report.items()):
            yield from report_facts(value, f"{where}.{k}".strip("."), k)
    elif isinstance(report, list):
        yield "report", f"{where}, length", len(report)
        for i, value in enumerate(report):
            yield from report_facts(value, f"{where}[{i}]", key)
    else:
        inexact = key in INEXACT and report is not None
        kind = "report, texts" if key in WORDED else "report, dB" if inexact else "report"
        yield kind, where, float(report) if inexact else report


def warning_facts(caught: list[warnings.WarningMessage]) -> Iterator[Fact]:
    for w in caught:
        if w.category.__module__.startswith("octavo"):
            yield "warnings", "", w.category.__name__
            yield "warnings, texts", "", str(w.message)


# ---- comparing


@dataclasses.dataclass
class Side:
    """What quantizing with one of the trees took; times are those of calls, compiled."""

    seconds: float = math.nan
    peak_mb: float = math.nan
    times_ms: list[float] = dataclasses.field(default_factory=list)


@dataclasses.dataclass
class Result:
    """One network: what differs (nothing, if it is well), what is worded otherwise, the cost."""

    name: str
    sides: tuple[Side, Side] = dataclasses.field(default_factory=lambda: (Side(), Side()))
    facts: dict[str, int] = dataclasses.field(default_factory=dict)
    differences: list[str] = dataclasses.field(default_factory=list)
    reworded: list[str] = dataclasses.field(default_factory=list)


def compare(result: Result, before: list[Fact], after: list[Fact]) -> None:
    """Enter into `result` what differs, kind by kind."""
    for kind in dict.fromkeys(k for k, _, _ in before + after):
        a, b = ([fact[1:] for fact in facts if fact[0] == kind] for facts in (before, after))
        result.facts[kind] = len(a)
        different = [p for p in zip(a, b, strict=False) if not same(kind, p[0][1], p[1][1])]
        if kind.endswith("texts"):
            result.reworded += [f"{x[1]!r} -> {y[1]!r}" for x, y in different]
            different = []
        if len(a) != len(b):
            result.differences.append(f"{kind}: {len(a)} before, {len(b)} after")
        if different:
            (where, x), (_, y) = different[0]
            found = f"{kind}: {len(different)} of {len(a)} differ, first at {where}: {told(x, y)}"
            result.differences.append(found)


def same(kind: str, a: Any, b: Any) -> bool:
    if isinstance(a, Tensor):
        numbers = (t.nan_to_num(0, math.inf, -math.inf) for t in (a, b))
        return a.dtype == b.dtype and torch.equal(a.isnan(), b.isnan()) and torch.equal(*numbers)
    return a == b or (kind == "report, dB" and math.isclose(a, b, rel_tol=1e-6))


def told(a: Any, b: Any) -> str:
    """How two values differ."""
    if not isinstance(a, Tensor):
        return f"{a} -> {b}"
    if a.dtype != b.dtype or a.shape != b.shape:
        return f"{a.dtype} {tuple(a.shape)} -> {b.dtype} {tuple(b.shape)}"
    largest = float((a.double() - b.double()).abs().max())
    return f"{int((a != b).sum())} of {a.numel()} values, by up to {largest:.3g}"


# ---- two processes for each network


class Child:
    """A process that quantizes one network with one source tree; see `quantize_one`."""

    def __init__(self, tree: Path, name: str, file: Path) -> None:
        self.file, self.errors, self.tree = file, file.with_suffix(".txt"), tree
        own = {"PYTHONPATH": str(tree / "src"), "PYTHONDONTWRITEBYTECODE": "1"}  # none in the trees
        own |= dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS"), "1")
        arguments = (name, str(file), str(tree / "src"))
        code = f"from benchmarks.equivalence import quantize_one; quantize_one(*{arguments!r})"
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        with self.errors.open("w") as errors:
            self.process = subprocess.Popen(
                [sys.executable, "-c", code], **pipes, stderr=errors, cwd=ROOT, env=os.environ | own
            )

    def read(self) -> dict[str, Any]:
        """Its next answer; RuntimeError, with the last that it said, if it has ended."""
        line = self.process.stdout.readline()  # type: ignore[union-attr]
        if not line:
            said = self.errors.read_text().strip().splitlines() or ["nothing said"]
            raise RuntimeError(f"with {self.tree}: " + " | ".join(said[-3:]))
        return json.loads(line)

    def end(self) -> None:
        self.process.kill()
        self.process.communicate()


def examine(name: str, trees: list[Path], timed: bool) -> Result:
    """Quantize one network with both trees and compare."""
    result, children = Result(name), []
    with tempfile.TemporaryDirectory() as folder:
        try:
            for i, tree in enumerate(trees):
                children.append(Child(tree, name, Path(folder, f"{i}.pt")))
            for child, side in zip(children, result.sides, strict=True):
                side.seconds, side.peak_mb = child.read().values()
            compare(result, *(torch.load(child.file) for child in children))
            if timed:
                time_in_turns(result, children)
        except (RuntimeError, OSError) as e:
            result.differences.append(str(e))
        finally:
            for child in children:
                child.end()
    return result


def time_in_turns(result: Result, children: list[Child]) -> None:
    """The first of each round is now one, now the other."""
    pairs, digests = list(zip(children, result.sides, strict=True)), set()
    for i in range(ROUNDS):
        for child, side in pairs[:: 1 if i % 2 else -1]:
            print("again", file=child.process.stdin, flush=True)
            answer = child.read()
            side.times_ms += answer["times_ms"]
            digests.add(answer["digest"])
    if len(digests) > 1:
        result.differences.append("what the compiled models compute differs")


# ---- the command


def as_table(results: list[Result], timed: bool) -> Table:
    table = Table(title="before -> after", box=box.SIMPLE_HEAD, title_justify="left")
    for column in ("network", "result"):
        table.add_column(column, overflow="fold")
    picks = {"median ms": statistics.median, "least ms": min} if timed else {}
    for column in ("seconds", "MB", *picks):
        table.add_column(column, justify="right")
    for r in results:
        counts = (r.facts.get(kind, 0) for kind in ("operators", "int8 weights"))
        equal = "equal: {} operators, {} weights".format(*counts)
        cells = [arrow(1, *(s.seconds for s in r.sides)), arrow(0, *(s.peak_mb for s in r.sides))]
        for pick in picks.values() if r.sides[1].times_ms else ():
            a, b = (pick(s.times_ms) for s in r.sides)
            cells.append(f"{arrow(3, a, b)}, x {b / a:.2f}")
        table.add_row(r.name, "\n".join(r.differences) or equal, *cells)
    return table


def arrow(digits: int, before: float, after: float) -> str:
    return f"{before:,.{digits}f} -> {after:,.{digits}f}"


def arguments() -> argparse.Namespace:
    summary, _, usage = (__doc__ or "").partition("\n\n")
    parser = argparse.ArgumentParser(
        description=summary, epilog=usage, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("before", type=Path)
    parser.add_argument("after", type=Path)
    parser.add_argument("--only", nargs="+", default=["*"], metavar="NAME", help="or patterns")
    parser.add_argument("--time", action="store_true", help="time the compiled models as well")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures")
    parser.add_argument("--list", action="version", version="\n".join(CASES), help="all names")
    options = parser.parse_args()
    options.trees = [options.before.resolve(), options.after.resolve()]
    if not all((tree / "src" / "octavo").is_dir() for tree in options.trees):
        parser.error("each tree needs src/octavo")
    options.names = [n for n in CASES if any(fnmatch.fnmatch(n, p) for p in options.only)]
    return options if options.names else parser.error(f"no network is called {options.only}")


def main() -> None:
    options, results = arguments(), []
    console = Console(markup=False, highlight=False, soft_wrap=True)
    for name in options.names:
        missing = [m for m in CASES[name].needs if importlib.util.find_spec(m) is None]
        if missing:
            console.print(f"{name} left out: it needs {', '.join(missing)}")
        else:
            with console.status(name):
                results.append(examine(name, options.trees, options.time))
    console.width = max(console.width, 140)
    console.print(as_table(results, options.time))
    for text in dict.fromkeys(text for r in results for text in r.reworded):
        console.print(f"worded otherwise: {text}")
    wrong = [r.name for r in results if r.differences]
    console.print(f"{len(results) - len(wrong)} networks equal, {len(wrong)} not")
    if options.json:
        options.json.write_text(json.dumps([dataclasses.asdict(r) for r in results]))
    sys.exit(bool(wrong))


if __name__ == "__main__":
    main()
