"""Static or dynamic: how the inputs of a network's linear layers are rounded, by trials.

Dynamic activations need no range from calibration, and fit every token's own; they cost the time
to find it. So in a network that is mostly linear layers, each kind of layer is tried alone, and
those that gain most are made dynamic first: they stay so where the network is more accurate, and
nearly as fast on this machine.
"""

from __future__ import annotations

import dataclasses
import math
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from functools import partial
from importlib.util import find_spec

from torch import fx

from ..calibrate.samples import Samples
from ..convert import Emission
from ..graph.operators import is_operator
from ..graph.tensors import constant
from ..metrics import FloatReference, Step
from ..sites.sites import Sites
from ..tune.equalize import equalize
from ..tune.tune import convert_with_few
from .latency import Compile, Race

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
    sites: Sites, samples: Samples, compile: Compile, macs: Mapping[fx.Node, int]
) -> tuple[Sites, tuple[Step, ...]]:
    """The sites, or those with dynamic linear layers where these are better.

    Products of two activations are tried in float as well. Without OpenVINO nothing is timed, and
    all stays static. macs: multiply-adds of each node, a sample.
    """
    if find_spec("openvino") is None or not _is_mostly_linear(sites, macs):
        return sites, ()
    few = samples.subset(TRIAL_SAMPLES)
    reference = FloatReference(sites.graph.module, few.measuring)
    try_out = partial(_tried, samples=few, reference=reference)
    inputs = samples.subset(1).measuring[0]
    static = best = try_out(sites)
    if static.sqnr >= max(ENOUGH, sites.config.target_sqnr):
        return sites, ()
    every = dict.fromkeys(sites.may_be_dynamic, "dynamic")
    highest = try_out(_with_float_products(sites).with_activations(every)).sqnr
    if highest < static.sqnr + LEAST_GAIN:
        return sites, (Step("dynamic linear layers", static.sqnr, highest, False),)
    kinds = _kinds(sites, macs)[:MOST_KINDS]
    changes = [_with_float_products, *(partial(_with_dynamic, names=names) for names in kinds)]
    alone = [try_out(change(sites)).sqnr for change in changes]  # the graphs would take memory
    race = Race(static.emission.module, compile, inputs)
    left = sorted(range(len(changes)), key=alone.__getitem__)
    while left and _possible(static.sqnr, [best.sqnr, *(alone[i] for i in left)]) >= LEAST_GAIN:
        trial = try_out(changes[left.pop()](best.sites))
        if trial.sqnr >= best.sqnr and race.ratio(trial.emission.module) <= MOST_TIME:
            best = trial
    kept = best.sqnr >= static.sqnr + LEAST_GAIN
    step = Step("dynamic linear layers", static.sqnr, best.sqnr if kept else highest, kept)
    return (best.sites if kept else sites), (step,)


def _possible(static: float, others: Sequence[float]) -> float:
    """The gain in dB over static if all that took away noise are combined, from the SQNR of each.

    Noises of different layers are independent, so their energies add up.
    """
    left = 1 - sum(max(1 - 10 ** ((static - sqnr) / 10), 0.0) for sqnr in others)
    return -10 * math.log10(left) if left > 0 else math.inf


def _is_mostly_linear(sites: Sites, macs: Mapping[fx.Node, int]) -> bool:
    """Whether layers that may be dynamic do most of the work, and there is much of it."""
    total = sum(macs.values())
    linear = [n for root in sites.may_be_dynamic for n in sites.rules[root].nodes]
    share = sum(macs.get(n, 0) for n in linear)
    return total >= LEAST_WORK and share >= LEAST_SHARE * total


def _with_float_products(sites: Sites) -> Sites:
    """The sites, with products of two activations in float."""
    return sites.with_float({r: IN_FLOAT for r in _products(sites) if r not in sites.reasons})


def _products(sites: Sites) -> list[fx.Node]:
    return [r for r, rule in sites.rules.items() if is_operator(rule.operator, "matmul", "bmm")]


def _with_dynamic(sites: Sites, names: Collection[str]) -> Sites:
    """The sites, with dynamic activations in those of these names."""
    return sites.with_activations({r: "dynamic" for r in sites.may_be_dynamic if r.name in names})


def _kinds(sites: Sites, macs: Mapping[fx.Node, int]) -> list[set[str]]:
    """The layers that may be dynamic, by name, those of one kind together; most work first.

    Of one kind are layers with weights of one shape whose inputs are read by as many others.
    """
    readers = Counter(v for r in sites.may_be_dynamic for v in sites.rules[r].activations())
    kinds: dict[tuple[str, int], set[str]] = {}
    work: Counter[tuple[str, int]] = Counter()
    for root in sites.may_be_dynamic:
        rule = sites.rules[root]
        (value,) = rule.activations()
        shapes = [tuple(constant(sites.graph.module, w).shape) for w in rule.weights()]
        kind = (str(shapes), readers[value])
        kinds.setdefault(kind, set()).add(root.name)
        work[kind] += sum(macs.get(n, 0) for n in rule.nodes)
    return [kinds[kind] for kind, _ in work.most_common()]


def _tried(sites: Sites, samples: Samples, reference: FloatReference) -> _Trial:
    """The sites, equalized for those that are static."""
    equalizes = any(s.equalize for s in sites.settings.values())
    graph = equalize(sites, samples.tuning) if equalizes else None
    form = sites if graph is None else sites.on(graph)
    emission = convert_with_few(form, samples)
    return _Trial(sites, emission, reference.noise(emission.module).sqnr)
