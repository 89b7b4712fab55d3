"""Static or dynamic: how the inputs of a network's linear layers are rounded, by trials.

Dynamic activations need no range from calibration, and fit every token's own; they cost the time
to find it. So in a network that is mostly linear layers, each kind of layer is tried alone, and
those that gain most are made dynamic first: they stay so where the network is more accurate, and
nearly as fast on this machine.
"""

from __future__ import annotations

import functools
import math
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from importlib.util import find_spec

from torch import fx

from ..calibrate.samples import Samples
from ..convert import QuantizedWeights, convert
from ..graph.operators import is_operator
from ..graph.tensors import constant
from ..metrics import FloatReference, Step
from ..sites.sites import Sites
from ..tune.equalize import equalize
from ..tune.tune import extremes_of
from .latency import Compile, Race

Change = Callable[[Sites], Sites]

TRIAL_SAMPLES = 4  # to observe, and as many to measure on
ENOUGH = 30.0  # dB of the output with static activations, or `Config.target_sqnr` if that is more
LEAST_GAIN = 1.0  # dB at the output
MOST_TIME = 1.05  # of the time with static activations
LEAST_SHARE = 0.5  # of the multiply-adds: what linear layers must have for a trial
LEAST_WORK = 3e6  # multiply-adds a sample: less is too little to time
MOST_KINDS = 6  # of layers that are tried
IN_FLOAT = "more accurate in float, and no slower"


class _Trials:
    """A network with static activations and what becomes of it by changes, all calibrated alike.

    It is equalized for static activations, which dynamic ones do not mind.
    """

    def __init__(self, sites: Sites, samples: Samples) -> None:
        equalizes = any(s.equalize for s in sites.settings.values())
        graph = equalize(sites, samples.tuning) if equalizes else None
        self.sites = sites if graph is None else sites.on(graph)
        self.reference = FloatReference(sites.graph.module, samples.measuring)
        self.ranges = extremes_of(self.sites, samples)
        self.weights = QuantizedWeights(self.sites.graph.module, sites.weight_spec)

    def module(self, changes: Sequence[Change]) -> fx.GraphModule:
        """The quantized graph with these changes."""
        return convert(_changed(self.sites, changes), self.ranges, self.weights).module

    def sqnr(self, module: fx.GraphModule) -> float:
        """Of a graph's output, in dB."""
        return self.reference.noise(module).sqnr


def _changed(sites: Sites, changes: Sequence[Change]) -> Sites:
    return functools.reduce(lambda changed, change: change(changed), changes, sites)


def choose_activations(
    sites: Sites, samples: Samples, compile: Compile, macs: Mapping[fx.Node, int]
) -> tuple[Sites, tuple[Step, ...]]:
    """The sites, or those with dynamic linear layers where these are better.

    Products of two activations are tried in float as well. Without OpenVINO nothing is timed, and
    all stays static. macs: multiply-adds of each node, a sample.
    """
    if find_spec("openvino") is None or not _is_mostly_linear(sites, macs):
        return sites, ()
    trials = _Trials(sites, samples.subset(TRIAL_SAMPLES))
    static = sqnr = trials.sqnr(trials.module([]))
    if static >= max(ENOUGH, sites.config.target_sqnr):
        return sites, ()
    highest = trials.sqnr(trials.module([_with_float_products, _with_all_dynamic]))
    if highest < static + LEAST_GAIN:
        return sites, (Step("dynamic linear layers", static, highest, False),)
    kinds = _kinds(sites, macs)[:MOST_KINDS]
    changes: list[Change] = [_with_float_products]
    changes += [partial(_with_dynamic, names=names) for names in kinds]
    alone = {change: trials.sqnr(trials.module([change])) for change in changes}
    left = sorted(changes, key=alone.__getitem__)
    race = Race(trials.module([]), compile, samples.subset(1).measuring[0])
    kept: list[Change] = []
    while left and _possible(static, [sqnr, *(alone[c] for c in left)]) >= LEAST_GAIN:
        tried = [*kept, left.pop()]
        module = trials.module(tried)
        found = trials.sqnr(module) if kept else alone[tried[0]]
        if found >= sqnr and race.ratio(module) <= MOST_TIME:
            kept, sqnr = tried, found
    if sqnr < static + LEAST_GAIN:
        return sites, (Step("dynamic linear layers", static, highest, False),)
    return _changed(sites, kept), (Step("dynamic linear layers", static, sqnr, True),)


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
    products = [r for r, s in sites.rules.items() if is_operator(s.operator, "matmul", "bmm")]
    return sites.with_float({r: IN_FLOAT for r in products if r not in sites.reasons})


def _with_all_dynamic(sites: Sites) -> Sites:
    """The sites, with dynamic activations wherever they may be."""
    return sites.with_activations(dict.fromkeys(sites.may_be_dynamic, "dynamic"))


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
