"""Static or dynamic: how the inputs of a network's linear layers are rounded, by trials.

Dynamic activations need no range from calibration, and fit every token's own; they cost the time
to find it. So in a network that is mostly linear layers, kinds of layers are tried in turn, first
those whose inputs lose most by static rounding: they become dynamic where that is more accurate,
and the network nearly as fast on this machine.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Sequence
from functools import partial
from importlib.util import find_spec

from torch import Tensor, fx

from ..calibrate.ranges import Ranges
from ..calibrate.samples import Samples
from ..convert import Emission
from ..graph.operators import is_operator
from ..graph.tensors import constant
from ..metrics import FloatReference, Step
from ..sites.sites import Sites
from ..tune.equalize import equalize
from ..tune.tune import convert_with_few
from .latency import Compile, Race
from .sensitivity import rounding_noise

Noises = Counter[fx.Node]  # at the output, by the rounding of each value
TRIAL_SAMPLES = 4  # to observe, and as many to measure on
ENOUGH = 30.0  # dB of the output with static activations, or `Config.target_sqnr` if that is more
LEAST_GAIN = 1.0  # dB at the output
MOST_TIME = 1.05  # of the time with static activations
LEAST_SHARE = 0.5  # of the multiply-adds: what linear layers must have for a trial
LEAST_WORK = 3e6  # multiply-adds a sample: less is too little to time
MOST_KINDS = 6  # of layers that are tried
IN_FLOAT = "more accurate in float, and no slower"


@dataclasses.dataclass(frozen=True)
class _Trial:
    """Sites, what they became with ranges of few samples, and the SQNR of the output in dB."""

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
    if static.sqnr >= max(ENOUGH, sites.config.target_sqnr):
        return sites, ()
    float_products = _with_float_products(sites)
    every = dict.fromkeys(sites.may_be_dynamic, "dynamic")
    highest = try_out(float_products.with_activations(every)).sqnr
    if highest < static.sqnr + LEAST_GAIN:
        return sites, (Step("dynamic linear layers", static.sqnr, highest, False),)
    race = Race(static.emission.module, compile, inputs)
    noise, _, _ = rounding_noise(static.emission, few.tuning)

    def is_better(trial: _Trial) -> bool:
        if trial.sqnr < best.sqnr:
            return False
        return race.ratio(trial.emission.module) <= MOST_TIME

    if is_better(plain := try_out(float_products)):
        best = plain
    for names in _noisiest_first(static, noise)[:MOST_KINDS]:
        roots = [r for r in best.sites.may_be_dynamic if r.name in names]
        trial = try_out(best.sites.with_activations(dict.fromkeys(roots, "dynamic")))
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
    return sites.with_float({r: IN_FLOAT for r in _products(sites) if r not in sites.reasons})


def _products(sites: Sites) -> list[fx.Node]:
    return [r for r, rule in sites.rules.items() if is_operator(rule.operator, "matmul", "bmm")]


def _noisiest_first(static: _Trial, noise: Noises) -> list[set[str]]:
    """The layers that may be dynamic, by name, those of one kind together.

    Of one kind are layers with weights of one shape whose inputs are read by as many others. First
    come those whose inputs, rounded to static ranges, make the most noise.
    """
    sites = static.emission.sites
    readers = Counter(v for r in sites.may_be_dynamic for v in sites.rules[r].activations())
    kinds: dict[tuple[str, int], set[str]] = {}
    total: Counter[tuple[str, int]] = Counter()
    for root in sites.may_be_dynamic:
        rule = sites.rules[root]
        (value,) = rule.activations()
        shapes = [tuple(constant(sites.graph.module, w).shape) for w in rule.weights()]
        kind = (str(shapes), readers[value])
        kinds.setdefault(kind, set()).add(root.name)
        total[kind] += noise[value] / readers[value]  # type: ignore[assignment]
    return [kinds[kind] for kind, _ in total.most_common()]


def _tried(sites: Sites, samples: Samples, reference: FloatReference) -> _Trial:
    """The sites, equalized for those that are static."""
    equalizes = any(s.equalize for s in sites.settings.values())
    graph = equalize(sites, samples.tuning) if equalizes else None
    form = sites if graph is None else sites.on(graph)
    emission = convert_with_few(form, samples)
    return _Trial(sites, emission, reference.noise(emission.module).sqnr)
