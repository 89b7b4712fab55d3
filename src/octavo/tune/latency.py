"""Choose for speed: operators that are slower as int8 in the engine stay float.

Measured in OpenVINO on this machine, whole model against whole model, since what an int8 operator
costs lies as much in the conversions around it as in itself.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from torch import Tensor

from ..calibrate import operator_name
from ..rules import Weighted

if TYPE_CHECKING:
    from ..quantizer import Quantizer

Call = Callable[[], Any]
ROUNDS = 30
WORTH_IT = 0.98  # of the time: less of a gain is noise


def choose_for_latency(quantizer: Quantizer, inputs: Sequence[Tensor]) -> None:
    """Turn float each kind of operator without which the model runs faster.

    Convolutions and linear layers are not tried: their int8 kernels are two to four times as
    fast. inputs: flat inputs of the call that is timed.
    """
    fastest = _compiled(quantizer, inputs)
    for kind, sites in _kinds(quantizer).items():
        before = dict(quantizer.float_reasons)
        reason = f"the model runs faster on this machine with {kind} in float"
        quantizer.set_float(before | dict.fromkeys(sites, reason))
        candidate = _compiled(quantizer, inputs)
        if time_ratio(candidate, fastest) < WORTH_IT:
            fastest = candidate
        else:
            quantizer.set_float(before)


def _kinds(quantizer: Quantizer) -> dict[str, list[str]]:
    """The int8 sites that compute, by operator, but for those with weights."""
    kinds: dict[str, list[str]] = {}
    for name in quantizer.reads:
        rule = quantizer.rule_of(quantizer.matches[name][0])
        if rule is not None and not rule.lossless and not isinstance(rule, Weighted):
            kinds.setdefault(operator_name(rule.operator), []).append(name)
    return kinds


def _compiled(quantizer: Quantizer, sample: Sequence[Tensor]) -> Call:
    from ..engines.openvino import compile_graph

    assert quantizer.signature is not None
    model = compile_graph(quantizer.quantize(), quantizer.signature)
    return lambda: model.run(sample)


def time_ratio(a: Call, b: Call) -> float:
    """The least time of `a` over that of `b`, called in turns."""
    least = [float("inf")] * 2
    for _ in range(ROUNDS):
        for i, call in enumerate((a, b)):
            call()  # the caches are the other's
            start = time.perf_counter()
            call()
            least[i] = min(least[i], time.perf_counter() - start)
    return least[0] / least[1]
