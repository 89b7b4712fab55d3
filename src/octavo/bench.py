"""Time a quantized model and the float one that it came from, and each of its operators."""

from __future__ import annotations

import contextlib
import math
import statistics
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from rich.table import Table
from torch import Tensor, nn

from .calibrate.data import batch_size, calls
from .capture.export import capture
from .capture.images import alike
from .capture.signature import Call, Signature
from .engines.base import compile_graph
from .engines.openvino.profile import Operator
from .engines.openvino.profile import profile as profile
from .errors import EngineError
from .metrics import UNLIKE, decibels, sqnr
from .model import QuantizedModel
from .passes import run_passes
from .printed import as_json_data
from .report import Latency, tensor_bytes
from .search.latency import median_milliseconds, seconds_in_turns

ROUNDS = 50  # timed calls
OPENVINO = "OpenVINO int8"
OTHERS = {"onnxruntime": "ONNX Runtime int8", "torch_int8": "PyTorch int8"}  # engine -> its name
FASTER = 0.97  # of the time: less is no matter for another engine


@dataclass(frozen=True)
class Result:
    """One variant of a model: seconds of each call, bytes of tensors, SQNR in dB against float."""

    name: str
    seconds: list[float]
    size: int
    sqnr: float

    @property
    def median(self) -> float:
        """Median time of a call, in milliseconds."""
        return statistics.median(self.seconds) * 1e3

    def to_dict(self) -> dict[str, Any]:
        """Median and least milliseconds, bytes and SQNR, as JSON data."""
        times = {"median_ms": self.median, "least_ms": min(self.seconds) * 1e3}
        facts = {"name": self.name, "bytes": self.size, "sqnr": self.sqnr}
        return dict(as_json_data(facts | times))


@torch.no_grad()
def compare_engines(
    model: nn.Module,
    quantized: QuantizedModel,
    data: Any,
    batch: int,
    rounds: int,
    threads: int | None = None,
) -> list[Result]:
    """Compare eager float, float OpenVINO and int8 in every engine on one input, called in turns.

    Engines that are not installed, or do not run the model, are left out.

    data: data as for `quantize`, of which the first call is used; None for a random batch.
    rounds: timed calls of each. threads: CPU threads of each; all of them by default.
    """
    model = alike(model, quantized)
    args, kwargs = example_call(model, quantized, data, batch)
    threads = threads or torch.get_num_threads()
    torch.set_num_threads(threads)
    float_graph = run_passes(capture(model, args, kwargs))
    assert float_graph.signature is not None  # captured by torch.export
    float_engine = compile_graph(float_graph.module, float_graph.signature, threads=threads)
    variants: dict[str, tuple[Callable[..., Any], int]] = {
        "PyTorch float": (model, tensor_bytes(model)),
        "OpenVINO float": (float_engine, tensor_bytes(model)),
        OPENVINO: (quantized.compile(threads=threads), tensor_bytes(quantized)),
    }
    for engine, name in OTHERS.items():
        options = {"threads": threads} if engine == "onnxruntime" else {}
        with contextlib.suppress(EngineError):
            variants[name] = (quantized.compile(engine, **options), tensor_bytes(quantized))
    reference = model(*args, **kwargs)
    noise = {name: sqnr(reference, run(*args, **kwargs)) for name, (run, _) in variants.items()}
    timed = [partial(run, *args, **kwargs) for run, _ in variants.values()]
    seconds = dict(zip(variants, seconds_in_turns(timed, rounds), strict=True))
    return [Result(name, seconds[name], size, noise[name]) for name, (_, size) in variants.items()]


@torch.no_grad()
def latency(
    quantized: QuantizedModel, data: Any = None, batch: int = 1, *, threads: int | None = None
) -> Latency:
    """Compile with OpenVINO and time calls, for `Report.latency`.

    data: data as for `quantize`, of which the first call is used; None for a random batch.
    threads: CPU threads; all that PyTorch uses by default.

    >>> import dataclasses, octavo
    >>> q = octavo.quantize(nn.Linear(8, 4), torch.randn(32, 8))
    >>> report = dataclasses.replace(q.report(), latency=latency(q))
    >>> report.latency.engine
    'OpenVINO'
    """
    args, kwargs = example_call(quantized, quantized, data, batch)
    threads = threads or torch.get_num_threads()
    run = partial(quantized.compile(threads=threads), *args, **kwargs)
    run()
    (milliseconds,) = median_milliseconds([run], ROUNDS)
    return Latency("OpenVINO", batch_size((args, kwargs)), threads, milliseconds)


def example_call(model: nn.Module, quantized: QuantizedModel, data: Any, batch: int) -> Call:
    """The first call in `data`, or random inputs if it is None."""
    return random_call(quantized.signature, batch) if data is None else next(calls(data, model))


def random_call(signature: Signature, batch: int, length: int = 128) -> Call:
    """Random inputs for a signature, with sizes `batch` and, elsewhere, `length`.

    Integers are 0, but for bytes.
    """
    tensors: list[Tensor] = []
    for dtype, shape in signature.inputs:
        size = [(length if i else batch) if d is None else d for i, d in enumerate(shape)]
        kind = getattr(torch, dtype)
        is_float = kind.is_floating_point
        largest = 256 if kind is torch.uint8 else 1  # other integers may be ids: only 0 is one
        tensors.append(
            torch.rand(size).to(kind) if is_float else torch.randint(0, largest, size, dtype=kind)
        )
    leaves: list[Any] = list(tensors)
    for i, value in sorted(signature.constants):
        leaves.insert(i, value)
    return torch.utils._pytree.tree_unflatten(leaves, signature.in_spec)


def bench_table(results: list[Result], file_size: int, batch: int) -> Table:
    """The results as a rich table; ratios are to the first."""
    table = Table(title=f"batch {batch}, {len(results[0].seconds)} calls in turns")
    table.add_column("")
    for column in ("median ms", "min ms", "samples/s", "times faster", "MB", "SQNR dB"):
        table.add_column(column, justify="right")
    for r in results:
        table.add_row(
            r.name,
            f"{r.median:.3f}",
            f"{min(r.seconds) * 1e3:.3f}",
            f"{batch / r.median * 1e3:.1f}",
            f"{results[0].median / r.median:.2f}",
            f"{r.size / 1e6:.2f}",
            decibels(r.sqnr),
        )
    table.caption = f"file: {file_size / 1e6:.2f} MB{faster_engine(results)}"
    if results[-1].sqnr < UNLIKE:
        table.caption += "; so little in common: does MODEL have the weights that were quantized?"
    return table


def faster_engine(results: list[Result]) -> str:
    """A note on the engine that runs the int8 model faster than OpenVINO; "" if none does."""
    times = {r.name: r.median for r in results}
    engine = min(OTHERS, key=lambda e: times.get(OTHERS[e], math.inf))
    ratio = times.get(OTHERS[engine], math.inf) / times.get(OPENVINO, 1.0)
    if ratio >= FASTER:
        return ""
    return f'; faster here in another engine, {ratio:.2f} of the time: q.compile("{engine}")'


def profile_tables(operators: list[Operator], most: int = 40) -> tuple[Table, Table]:
    """The most expensive operators of a profile as a rich table, and the total of each kind."""
    kinds: dict[str, list[float]] = {}
    for o in operators:
        kinds.setdefault(o.kind, []).append(o.milliseconds)
    total = sum(o.milliseconds for o in operators) or 1.0

    def table(title: str, *columns: str) -> Table:
        made = Table(title=title, title_justify="left")
        for column in ("ms", "share"):
            made.add_column(column, justify="right")
        for column in columns:
            made.add_column(column, overflow="fold")
        return made

    def time(ms: float) -> tuple[str, str]:
        return f"{ms:.4f}", f"{ms / total:.1%}"

    title = f"{len(operators)} operators of OpenVINO int8, {total:.3f} ms a call together"
    each = table(title, "module", "operator", "kernel", "types", "computes")
    for o in operators[:most]:
        nodes = " + ".join(n.rpartition("/")[2] for n in o.nodes)
        each.add_row(
            *time(o.milliseconds), o.path, o.kind, o.kernel, f"{o.reads} -> {o.gives}", nodes
        )
    if operators[most:]:
        each.caption = f"and {len(operators) - most} cheaper ones"
    totals = table("by kind", "operator", "count")
    for kind, times in sorted(kinds.items(), key=lambda item: -sum(item[1])):
        totals.add_row(*time(sum(times)), kind, str(len(times)))
    return each, totals
