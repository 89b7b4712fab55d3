"""One architecture: quantized, saved and loaded, run on both engines, compared with float."""

from __future__ import annotations

import inspect
import tempfile
import time
import warnings
from collections import Counter
from pathlib import Path

import torch
from torch import nn

import octavo

from ..measuring import error_line
from .architectures import ARCHITECTURES, Architecture, settle
from .random_inputs import Call
from .results import Result


def examine(name: str) -> Result:
    """All steps for one architecture, up to the first that fails."""
    result = Result(name)
    try:
        with torch.no_grad():
            run_steps(result, ARCHITECTURES[name])
    except Exception as e:
        result.error = error_line(e, lines=3, length=400)
    return result


def run_steps(result: Result, case: Architecture) -> None:
    torch.manual_seed(0)
    model = settle(case.build(), case.inputs)
    result.step = "quantize"
    start = time.perf_counter()
    quantized = quantize(model, [case.inputs(4, 10), case.inputs(4, 11, case.length)], result)
    result.seconds = time.perf_counter() - start
    report = quantized.report()
    result.int8_share = report.int8_share
    floats = (f"{r.operator}: {r.reason}" for r in report.rows if r.precision == "float")
    result.float_sites = dict(Counter(floats))
    result.notes = list(report.notes)
    result.step = "file"
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        fast = from_file(quantized).compile()
    result.notes += [str(w.message) for w in caught if w.category is octavo.PartitionWarning]
    for batch, length in ((3, 0), (1, case.length)):
        args, kwargs = case.inputs(batch, 20, length)
        result.step = f"batch {batch}" + (f", length {length}" if length else "")
        expected, got = model(*args, **kwargs), quantized(*args, **kwargs)
        result.sqnr_db = least(result.sqnr_db, octavo.sqnr(expected, got))
        result.engines_db = least(result.engines_db, octavo.sqnr(got, fast(*args, **kwargs)))
    result.step = "done"


def least(before: float | None, now: float) -> float:
    """The lower of two SQNRs, of which the first may not be there yet."""
    return now if before is None else min(before, now)


def quantize(model: nn.Module, calls: list[Call], result: Result) -> octavo.QuantizedModel:
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
