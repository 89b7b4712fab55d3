"""Choose for speed: sites that are slower as int8 in the engine stay float.

Measured in OpenVINO on this machine. Its clock for each operator says which sites could gain
enough to be tried; whether they do, whole model is measured against whole model, since what an
int8 operator costs lies as much in the conversions around it as in itself.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from torch import Tensor, fx

from ..graph.names import full_name, operator_name
from ..graph.tensors import attribute
from ..sites.rules import Weighted

if TYPE_CHECKING:
    from ..engines.base import EngineModel
    from ..quantizer import Quantizer

Call = Callable[[], Any]
ROUNDS, SECONDS = 30, 0.5  # at least so many, and for so long
WORTH_IT = 0.98  # of the time: less of a gain is noise


def choose_for_latency(quantizer: Quantizer, inputs: Sequence[Tensor]) -> None:
    """Turn float the sites without which the model runs faster.

    Sites of the same operator and shapes are tried together, and only if OpenVINO's clock leaves
    room for a gain: see `_candidates`. inputs: flat inputs of the call that is timed.
    """
    model = _compiled(quantizer, quantizer.quantize())
    candidates = _candidates(
        quantizer, Clock(model, inputs), Clock(_compiled(quantizer, quantizer.module), inputs)
    )
    fastest = partial(model.run, inputs)
    for label, sites in candidates.items():
        before = dict(quantizer.float_reasons)
        reason = f"the model runs faster on this machine with {label} in float"
        quantizer.set_float(before | dict.fromkeys(sites, reason))
        candidate = partial(_compiled(quantizer, quantizer.quantize()).run, inputs)
        if time_ratio(candidate, fastest) < WORTH_IT:
            fastest = candidate
        else:
            quantizer.set_float(before)


class Clock:
    """What one call spends on each operator, by OpenVINO's clock.

    A model that OpenVINO runs only in part has none: any of its operators may take forever.
    """

    rounds = 20

    def __init__(self, model: EngineModel, inputs: Sequence[Tensor]) -> None:
        from ..engines.openvino.engine import CompiledModel
        from ..engines.openvino.profile import profile_flat

        self.operators = None
        if isinstance(model, CompiledModel):
            self.operators = profile_flat(model, inputs, self.rounds)

    def of(self, names: Iterable[str], without: Iterable[str] = ()) -> float:
        """Milliseconds of the operators that compute any of `names` and none of the others."""
        if self.operators is None:
            return math.inf
        wanted, others = set(names), set(without)
        return sum(
            o.milliseconds
            for o in self.operators
            if wanted.intersection(o.nodes) and not others.intersection(o.nodes)
        )

    @property
    def total(self) -> float:
        """Milliseconds of all."""
        return sum(o.milliseconds for o in self.operators or ())


def _candidates(quantizer: Quantizer, int8: Clock, plain: Clock) -> dict[str, list[str]]:
    """What to try, with the most to gain first: what it is -> its sites.

    To gain is all the time of an operator without weights and of the quantization of what it
    reads, where they are not part of another layer; of a convolution or linear layer only what it
    takes more than in float. Shapes with too little are tried with others of their operator.
    """
    room = (1 - WORTH_IT) * int8.total
    layers = {n for rule in quantizer.weighted_sites() for n in _emitted(quantizer, rule.root.name)}
    gains: dict[str, float] = {}
    found: dict[str, list[str]] = {}
    for (kind, *_), sites in _by_likeness(quantizer).items():
        root = quantizer.matches[sites[0]][0]
        own = {n for site in sites for n in _emitted(quantizer, site)}
        read = {n for site in sites for n in _quantized(quantizer, site)}
        gain = int8.of(own | read, without=layers - own)
        if isinstance(quantizer.rule_of(root), Weighted):
            gain -= plain.of(full_name(n) for site in sites for n in quantizer.covered[site])
        if gain > 0:
            label = f"{kind} {_form(root)}" if gain > room else kind
            gains[label] = gains.get(label, 0) + gain
            found.setdefault(label, []).extend(sites)
    order = sorted(found, key=lambda label: -gains[label])
    return {label: found[label] for label in order if gains[label] > room}


def _by_likeness(quantizer: Quantizer) -> dict[tuple[str, ...], list[str]]:
    """The int8 sites that compute, by operator, shapes and settings."""
    alike: dict[tuple[str, ...], list[str]] = {}
    for name in quantizer.reads:
        rule = quantizer.rule_of(quantizer.matches[name][0])
        if rule is not None and not rule.lossless:
            shapes = [_shape(quantizer, n) for n in rule.operator.all_input_nodes]
            settings = fx.map_arg(rule.operator.args, lambda n: None)
            key = (operator_name(rule.operator), str(shapes), str(settings))
            alike.setdefault(key, []).append(name)
    return alike


def _shape(quantizer: Quantizer, node: fx.Node) -> str:
    is_weight = node.op == "get_attr"
    value = attribute(quantizer.module, node.target) if is_weight else node.meta.get("val")
    return str(tuple(value.shape)) if isinstance(value, Tensor) else ""


def _form(node: fx.Node) -> str:
    """The shape of what a site gives, free sizes as "*": "*x64x56x56"."""
    value = node.meta.get("val")
    sizes = value.shape if isinstance(value, Tensor) else ()
    return "x".join(str(d) if type(d) is int else "*" for d in sizes)


def _emitted(quantizer: Quantizer, site: str) -> Iterator[str]:
    """What the engine calls the operators of a site."""
    copies = quantizer.conversion.copies
    yield from (full_name(copies[n]) for n in quantizer.covered[site] if n in copies)


def _quantized(quantizer: Quantizer, site: str) -> Iterator[str]:
    """What the engine calls the quantization of what a site reads."""
    integers = quantizer.conversion.quant_env
    yield from (full_name(integers[n.name]) for n in quantizer.reads[site] if n.name in integers)


def _compiled(quantizer: Quantizer, graph: fx.GraphModule) -> EngineModel:
    from ..engines.openvino.engine import compile_graph

    assert quantizer.signature is not None
    return compile_graph(graph, quantizer.signature)


def time_ratio(a: Call, b: Call) -> float:
    """The least time of `a` over that of `b`, called in turns."""
    least = [math.inf] * 2
    rounds, until = 0, time.perf_counter() + SECONDS
    while rounds < ROUNDS or time.perf_counter() < until:
        rounds += 1
        for i, call in enumerate((a, b)):
            call()  # the caches are the other's
            start = time.perf_counter()
            call()
            least[i] = min(least[i], time.perf_counter() - start)
    return least[0] / least[1]
