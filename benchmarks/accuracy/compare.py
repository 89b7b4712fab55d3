"""Every setting on one network: quantized, compared with float on the evaluation data, timed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import openvino
import torch
from torch import Tensor

import octavo

from ..internals import openvino_compiled_model, sqnr_of_all
from ..measuring import THREADS, attempt, time_alternately
from ..peers import frameworks
from .networks import Task
from .results import Result
from .settings import Quantize

Run = Callable[[Tensor], Tensor]
MATRIX_LAYERS = {"Convolution", "Deconvolution", "FullyConnected", "MatMul", "RNNSeq", "RNNCell"}
ROUNDS, CALLS = 12, 5  # of timing, and the calls of a setting in a round


def compare(
    name: str, task: Task, settings: Mapping[str, Quantize], timed: bool = True
) -> list[Result]:
    """Every setting on one network; first float, where there are labels."""
    expected = outputs(task, task.model)
    results, calls = [], {}
    if task.labels is not None:
        results.append(Result(name, "float"))
        evaluate(results[0], task, task.model, expected)
    one = task.evaluation[0][:1].clone()
    for peer, quantize in settings.items():
        result = Result(name, peer)
        results.append(result)
        done = attempt(quantize, task.model, task.calibration)
        if done.error:
            result.error = done.error
            continue
        result.seconds = done.seconds
        run, compiled_for = runner(done.value)
        result.error = attempt(evaluate, result, task, run, expected).error
        if compiled_for is not None:
            result.int8 = int8_share(compiled_for(one))
            calls[peer] = partial(run, one)
    if timed:
        for peer, times in time_alternately(calls, ROUNDS, CALLS).items():
            next(r for r in results if r.peer == peer).ms = min(times)
    return results


def evaluate(result: Result, task: Task, run: Run, expected: Tensor) -> None:
    """Enter what the outputs on the evaluation data show."""
    got = outputs(task, run)
    result.sqnr, result.agreement = sqnr_of_all([(expected, got)]), task.agreement(expected, got)
    if task.labels is not None:
        result.accuracy = (got.argmax(1) == task.labels).float().mean().item()


def outputs(task: Task, run: Run) -> Tensor:
    """All outputs on the evaluation data."""
    with torch.inference_mode():
        return torch.cat([torch.as_tensor(run(x)).clone() for x in task.evaluation])


# ---- running what a framework made


def runner(quantized: Any) -> tuple[Run, Callable[[Tensor], Any] | None]:
    """A function of a batch; and, if OpenVINO runs it, its compiled model for a batch."""
    if isinstance(quantized, octavo.QuantizedModel):
        fast = quantized.compile(threads=THREADS)
        return fast, partial(openvino_compiled_model, fast)
    if isinstance(quantized, openvino.Model):
        return openvino_runner(quantized)
    if isinstance(quantized, bytes):
        return lambda x: torch.from_numpy(frameworks.compile_onnxruntime(quantized, x)()), None
    return quantized, None


def openvino_runner(model: openvino.Model) -> tuple[Run, Callable[[Tensor], Any]]:
    """Of a model that is compiled once for each shape."""
    compiled: dict[torch.Size, Any] = {}

    def compiled_for(x: Tensor) -> Any:
        if x.shape not in compiled:
            compiled[x.shape] = frameworks.openvino_for_shape(model, x)
        return compiled[x.shape]

    return lambda x: torch.from_numpy(compiled_for(x)(x.numpy())[0].copy()), compiled_for


def int8_share(compiled: openvino.CompiledModel) -> float:
    """Of the matrix operators that OpenVINO executes, the share that reads integers."""
    found = []
    for node in compiled.get_runtime_model().get_ordered_ops():
        info = {k: v.astype(str) for k, v in node.get_rt_info().items()}
        if info.get("layerType") in MATRIX_LAYERS:
            found.append(info["runtimePrecision"] in ("u8", "i8"))
    return sum(found) / len(found) if found else 0.0
