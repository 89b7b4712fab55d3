"""Every peer on one model: made ready, checked against float, timed."""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

import octavo

from ..measuring import Call, Outcome, attempt, time_alternately
from ..random_models import Samples, inputs, random_model
from .frameworks import PEERS, first_call
from .results import Result


def compare(
    name: str,
    peers: Sequence[str],
    batches: Sequence[int] = (1, 8),
    samples: int = 32,
    rounds: int = 20,
    calls: int = 10,
) -> list[Result]:
    """Results on one model: prepared once, then timed at each batch size.

    samples: to calibrate with. rounds, calls: of timing, and the calls of a peer in a round.
    """
    model, data = random_model(name), list(Samples(name, samples))
    prepared = {peer: attempt(PEERS[peer].prepare, model, data) for peer in peers}
    results: list[Result] = []
    for batch in batches:
        x = next(inputs(name, batch, batch, seed=2))
        ready = [make_ready(Result(name, batch, p), o, model, x) for p, o in prepared.items()]
        to_time = {result.peer: call for result, call in ready if call is not None}
        times = time_alternately(to_time, rounds, calls)
        for result, call in ready:
            if call is not None:
                result.times_ms = times[result.peer]
                result.median_ms = statistics.median(result.times_ms)
                result.min_ms = min(result.times_ms)
            results.append(result)
    return results


def make_ready(
    result: Result, prepared: Outcome, model: nn.Module, x: Tensor
) -> tuple[Result, Call | None]:
    """Compile for the shape of `x`: the result with all but the times, and the call to time."""
    first = prepared
    if not prepared.error:
        first = attempt(first_call, PEERS[result.peer], prepared.value, x)
    if first.error:
        result.error = first.error
        return result, None
    call, output = first.value
    if prepared.value is not model:
        result.ready_s = prepared.seconds + first.seconds
        with torch.inference_mode():
            result.sqnr_db = octavo.sqnr(model(x), output)
    if isinstance(prepared.value, octavo.QuantizedModel):
        result.octavo_file_mb = file_megabytes(prepared.value)
    return result, call


def file_megabytes(model: octavo.QuantizedModel) -> float:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "model.octavo")
        octavo.save(model, path)
        return path.stat().st_size / 1e6
