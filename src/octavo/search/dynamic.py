"""Static or dynamic: how the inputs of a network's linear layers are rounded, by trials.

Dynamic activations need no range from calibration, and fit every token's own; they cost the time
to find it. So in a network that is mostly linear layers, those whose inputs lose most by static
rounding are made dynamic, as many as are nearly as fast on this machine.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from importlib.util import find_spec

from torch import Tensor, fx

from ..calibrate.ranges import Ranges
from ..calibrate.samples import Samples
from ..convert import Emission, QuantizedWeights, convert
from ..engines.base import EngineModel
from ..graph.operators import is_operator
from ..graph.verify import graph_text
from ..metrics import FloatReference, Step
from ..sites.sites import Sites
from .latency import time_ratio
from .sensitivity import rounding_noise

Compile = Callable[[fx.GraphModule], EngineModel]
TRIAL_SAMPLES = 4  # to observe, and as many to measure on
LEAST_GAIN = 1.0  # dB at the output
MOST_TIME = 1.05  # of the time with static activations
LEAST_SHARE = 0.5  # of the multiply-adds: what linear layers must have for a trial
LEAST_WORK = 3e6  # multiply-adds a sample: less is too little to time
SHARES = (0.5, 0.8, 0.95, 1.0)  # of the noise of static inputs that is to be avoided
IN_FLOAT = "more accurate in float, and no slower"


@dataclasses.dataclass(frozen=True)
class _Trial:
    """Sites converted with ranges of few samples, and the SQNR of the output in dB."""

    sites: Sites
    emission: Emission
    sqnr: float


def choose_activations(
    sites: Sites, samples: Samples, compile: Compile
) -> tuple[Sites, tuple[Step, ...]]:
    """The sites, or those with dynamic linear layers where these are better.

    Products of two activations are tried in float as well. Without OpenVINO nothing is timed, and
    all stays static.
    """
    few = samples.subset(TRIAL_SAMPLES)
    if find_spec("openvino") is None or not _is_mostly_linear(sites, few.tuning[0]):
        return sites, ()
    reference = FloatReference(sites.graph.module, few.measuring)
    try_out = partial(_tried, samples=few, reference=reference)
    inputs = samples.subset(1).measuring[0]
    static = best = try_out(sites)
    highest = static.sqnr

    def is_better(trial: _Trial) -> bool:
        if trial.sqnr < best.sqnr:
            return False
        modules = trial.emission.module, static.emission.module
        return _time_ratio(*modules, compile, inputs) <= MOST_TIME

    if is_better(plain := try_out(_with_float_products(sites))):
        best = plain
    base = best.sites
    for roots in _noisiest(static, few.tuning):
        trial = try_out(base.with_dynamic(roots))
        highest = max(highest, trial.sqnr)
        best = trial if is_better(trial) else best
    kept = best.sqnr >= static.sqnr + LEAST_GAIN
    step = Step("dynamic linear layers", static.sqnr, best.sqnr if kept else highest, kept)
    return (best.sites if kept else sites), (step,)


def _is_mostly_linear(sites: Sites, inputs: Sequence[Tensor]) -> bool:
    """Whether layers that may be dynamic do most of the work, and there is much of it."""
    ranges = Ranges(sites, watches={})
    ranges.observe(inputs)
    total = sum(ranges.macs.values())
    linear = [n for root in sites.may_be_dynamic for n in sites.rules[root].nodes]
    share = sum(ranges.macs.get(n, 0) for n in linear)
    return total >= LEAST_WORK and share >= LEAST_SHARE * total


def _with_float_products(sites: Sites) -> Sites:
    """The sites, with products of two activations in float."""
    products = [r for r, rule in sites.rules.items() if is_operator(rule.operator, "matmul", "bmm")]
    return sites.with_float({r: IN_FLOAT for r in products if r not in sites.reasons})


def _noisiest(static: _Trial, batches: Sequence[Sequence[Tensor]]) -> Iterator[list[fx.Node]]:
    """Sets of layers whose inputs make `SHARES` of the noise that static rounding adds.

    Layers that read the same value are together.
    """
    readers: dict[fx.Node, list[fx.Node]] = {}
    for root in static.sites.may_be_dynamic:
        for value in static.sites.rules[root].activations():
            readers.setdefault(value, []).append(root)
    noise, _, _ = rounding_noise(static.emission, batches)
    order = sorted(readers, key=lambda value: -noise[value])
    total, reached = sum(noise[v] for v in order), 0.0
    found: list[fx.Node] = []
    shares = iter(SHARES)
    share = next(shares)
    for i, value in enumerate(order):
        found += readers[value]
        reached += noise[value]
        if reached >= share * total or i == len(order) - 1:
            yield list(found)
            share = next((s for s in shares if s * total > reached), 2.0)


def _tried(sites: Sites, samples: Samples, reference: FloatReference) -> _Trial:
    ranges = Ranges(sites, observer="minmax")  # of few samples, extremes are better
    for inputs in samples.tuning:
        ranges.observe(inputs)
    weights = QuantizedWeights(sites.graph.module, sites.weight_spec)
    emission = convert(sites, ranges, weights)
    return _Trial(sites, emission, reference.noise(emission.module).sqnr)


_RATIOS: dict[tuple[str, ...], float] = {}  # measured in this process: the same choice each time


def _time_ratio(
    a: fx.GraphModule, b: fx.GraphModule, compile: Compile, inputs: Sequence[Tensor]
) -> float:
    """The time of `a` over that of `b` in the engine, measured once for graphs of their shapes."""
    key = (graph_text(a.graph), graph_text(b.graph), *(str(tuple(t.shape)) for t in inputs))
    if key not in _RATIOS:
        first, second = (partial(compile(module).run, inputs) for module in (a, b))
        _RATIOS[key] = time_ratio(first, second)
    return _RATIOS[key]
