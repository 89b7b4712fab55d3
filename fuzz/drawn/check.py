"""Program -> Outcome: what Octavo makes of a network, against PyTorch, at every size.

Shapes, dtypes, structures and numbers agree, or an OctavoError says why they cannot. Anything else
is a finding: its stage, what happened, and how large the error was.
"""

from __future__ import annotations

import importlib
import math
import re
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from torch.utils._pytree import tree_map_only

import octavo
from octavo import OctavoError, errors
from octavo.engines.base import EngineModel
from octavo.graph.names import operator_name
from octavo.graph.operators import operator_of

from .compare import changed, difference, noise, state, unequal
from .program import Program

ENGINES: dict[str, dict[str, Any]] = {
    "openvino": {"threads": 1},
    "onnxruntime": {"threads": 1},
    "torch_int8": {},
}
FILES = (".onnx", ".xml")
PARTS = ("save", *ENGINES, *FILES)
# An engine rounds some values of 8 bits the other way; more noise than this is more than that,
# unless int8 adds as much itself.
LEAST_DB = 25.0
# Below, what PyTorch computes in float32 is only what rounding left of a difference, as of the sum
# of what a layer norm made: there is nothing to compare.
STABLE_DB = 60.0
GRAPH_DB = {"float32": 80.0, "float64": 80.0, "float16": 35.0, "bfloat16": 20.0}
# What Octavo warns of: that a model is noisy, or that PyTorch runs a part of it.
EXPECTED = tuple(
    kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, Warning)
)
stages = importlib.import_module("octavo.quantize")


@dataclass
class Outcome:
    """What happened to a network.

    findings: stage -> what is wrong. refusals: stage -> an OctavoError's class and first line.
    noise: stage -> SQNR in dB, the least of all sizes. seconds: by stage.
    operators: of the captured graph. own: what the model itself warns of.
    """

    findings: dict[str, str] = field(default_factory=dict)
    refusals: dict[str, str] = field(default_factory=dict)
    noise: dict[str, float] = field(default_factory=dict)
    seconds: Counter[str] = field(default_factory=Counter)
    operators: Counter[str] = field(default_factory=Counter)
    own: set[str] = field(default_factory=set)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Notes how much CPU time a stage takes, and what it raises or warns of."""
        start = time.process_time()
        try:
            with warnings.catch_warnings(record=True) as seen:
                warnings.simplefilter("always")
                yield
            for w in seen:
                expected = issubclass(w.category, (*EXPECTED, DeprecationWarning, FutureWarning))
                if not expected and str(w.message) not in self.own:
                    self.find(name, f"warns: {w.category.__name__}: {_first(w.message)}")
        except OctavoError as e:
            self.refusals.setdefault(name, f"{type(e).__name__}: {_first(e)}")
        except Exception as e:
            self.find(name, f"raises {type(e).__name__}: {_first(e)}")
        self.seconds[name] += time.process_time() - start

    def find(self, stage: str, what: str) -> None:
        self.findings.setdefault(stage, what)

    def judge(self, stage: str, expected: Any, got: Any, least: float) -> None:
        """Compare two outputs; below `least` dB is a finding."""
        if wrong := difference(expected, got):
            self.find(stage, wrong)
            return
        db = noise(expected, got)
        self.noise[stage] = min(db, self.noise.get(stage, math.inf))
        if db < least:
            self.find(stage, f"other numbers: {db:.1f} dB, at least {least:.1f} expected")


def check(program: Program, parts: Collection[str] = PARTS) -> Outcome:
    """What must hold for a network: beside the reference, saving, engines and exported files."""
    outcome, q = Outcome(own=_warnings(program)), None
    torch.set_num_threads(1)
    model, batches = program.network(), program.batches()
    before, graphs = state(model), []
    with outcome.stage("quantize"), _recorded(graphs):
        q = octavo.quantize(model, batches, config="fast", progress=False)
    if what := changed(before, model):
        outcome.find("model", what)
    if graphs:
        outcome.operators.update(operator_of(n).name or _name(n) for n in graphs[0].graph.nodes)
    if q is None:
        return outcome

    runs = _references(program, q, graphs[-1], outcome)
    if "save" in parts:
        _saved(q, runs, outcome)
    for engine in [e for e in ENGINES if e in parts]:
        _judged(engine, partial(q.compile, engine, **ENGINES[engine]), runs, outcome)
    for suffix in [s for s in FILES if s in parts]:
        with tempfile.TemporaryDirectory() as folder:
            _judged(suffix, partial(_exported, q, Path(folder, f"model{suffix}")), runs, outcome)
    return outcome


def _warnings(program: Program) -> set[str]:
    """What PyTorch itself warns of."""
    args, kwargs = program.arguments(program.call(program.sizes[0]))
    with warnings.catch_warnings(record=True) as seen, torch.no_grad():
        warnings.simplefilter("always")
        program.network()(*args, **kwargs)
    return {str(w.message) for w in seen}


def _name(node: Any) -> str:
    """Of an operator that the table lacks."""
    return operator_name(node) if node.op == "call_function" else ""


@contextmanager
def _recorded(graphs: list[Any]) -> Iterator[None]:
    """Keep the captured graph and the one after the passes, which `quantize` makes."""

    def kept(function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any) -> Any:
            graphs.append(function(*args))
            return graphs[-1]

        return call

    names = ("capture", "run_passes")
    with mock.patch.multiple(stages, **{n: kept(getattr(stages, n)) for n in names}):
        yield


@dataclass(frozen=True)
class Run:
    """One call, what the reference returns, and how much noise of an engine is rounding."""

    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    expected: Any
    least: float


def _references(program: Program, q: Any, graph: Any, outcome: Outcome) -> list[Run]:
    """The float model, the float graph and the reference at all sizes; runs for the engines."""
    found = []
    for i, sizes in enumerate(program.sizes):
        model = program.network()  # anew: what it has made for another size may stay in it
        args, kwargs = program.arguments(program.call(sizes, i if i < 2 else 9))
        with torch.no_grad(), outcome.stage(f"reference, size {i}"):
            want = model(*args, **kwargs)
            got = q(*args, **kwargs)
            floats = graph.unflatten(graph.module(*graph.flatten(args, kwargs)))
            outcome.judge(f"graph, size {i}", want, floats, GRAPH_DB[program.dtype])
            outcome.judge(f"reference, size {i}", want, got, -math.inf)
            if not difference(want, got):
                stable = _precision(program, want, args, kwargs) > STABLE_DB
                least = min(LEAST_DB, noise(want, got) + 3) if stable else -math.inf
                found.append(Run(args, kwargs, got, least))
    return found


def _precision(program: Program, want: Any, args: Any, kwargs: Any) -> float:
    """SQNR in dB of an output beside that of the network in float64; infinite if that fails."""

    def double(value: torch.Tensor) -> torch.Tensor:
        return value.double() if value.is_floating_point() else value

    if program.dtype != "float32":
        return math.inf
    args, kwargs = tree_map_only(torch.Tensor, double, (args, kwargs))
    with suppress(RuntimeError):  # it mixes dtypes where it makes tensors
        return noise(program.network().double()(*args, **kwargs), want, quiet=0)
    return math.inf


def _saved(q: Any, runs: list[Run], outcome: Outcome) -> None:
    """A file holds the same graph and the same tensors.

    Its results may differ in the last bit: matrix kernels depend on where tensors lie in memory.
    """
    again = None
    with outcome.stage("save"), tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "model.octavo")
        octavo.save(q, path)
        again = octavo.load(path)
        if str(again.graph) != str(q.graph) or again.signature != q.signature:
            outcome.find("save", "another graph or signature")
        if unequal(dict(q.named_buffers()), dict(again.named_buffers())):
            outcome.find("save", "other tensors")
    if again is not None:
        _judged("save", lambda: again, runs, outcome)


def _judged(name: str, make: Callable[[], Any], runs: list[Run], outcome: Outcome) -> None:
    fast = None
    with outcome.stage(name):
        fast = make()
    for run in runs if fast is not None else []:
        with torch.no_grad(), outcome.stage(name):
            call = (run.args, run.kwargs)
            given = tree_map_only(torch.Tensor, torch.clone, call)
            outcome.judge(name, run.expected, fast(*run.args, **run.kwargs), run.least)
            if unequal(given, call):
                outcome.find(name, "the call's inputs are changed")


def _exported(q: Any, path: Path) -> EngineModel:
    """The written file, in the runtime that reads it."""
    octavo.export(q, path)
    return IrFile(q, path) if path.suffix == ".xml" else OnnxFile(q, path)


class IrFile(EngineModel):
    """An .xml file in OpenVINO."""

    def __init__(self, q: Any, path: Path) -> None:
        import openvino

        super().__init__(q.signature)
        settings = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 1}
        self.model = openvino.Core().compile_model(path, "CPU", settings)

    def run(self, inputs: Any) -> list[torch.Tensor]:
        arrays = [t.contiguous().numpy(force=True) for t in inputs]
        return [torch.from_numpy(r.copy()) for r in self.model(arrays).to_tuple()]


class OnnxFile(EngineModel):
    """An .onnx file in ONNX Runtime."""

    def __init__(self, q: Any, path: Path) -> None:
        import onnxruntime

        super().__init__(q.signature)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.log_severity_level = 1, 3
        self.session = onnxruntime.InferenceSession(path, options, ["CPUExecutionProvider"])

    def run(self, inputs: Any) -> list[torch.Tensor]:
        names = [i.name for i in self.session.get_inputs()]
        feeds = {n: t.contiguous().numpy(force=True) for n, t in zip(names, inputs, strict=True)}
        return [torch.from_numpy(r) for r in self.session.run(None, feeds)]


def _first(message: Any) -> str:
    lines = [line for line in str(message).strip().splitlines() if line]
    return re.sub(r"\x1b\[\d+m", "", lines[0])[:200] if lines else ""
