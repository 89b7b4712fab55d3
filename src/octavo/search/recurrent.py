"""Recurrent layers that multiply integers, kept where trials show the gain and not the loss.

Rounding errors of the state accumulate from step to step: in some networks the output is as good as
before, in others nothing is left of it. So each layer is measured, on the samples kept.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from importlib.util import find_spec

from torch import fx

from ..calibrate.samples import Samples
from ..metrics import FloatReference, Step
from ..sites.sites import Sites
from ..tune.tune import convert_with_few
from .latency import Compile, Race

TRIAL_SAMPLES = 8  # to observe, and as many to measure on
GOAL = 30.0  # dB of the output by these layers' noise alone, or more as `Config.target_sqnr` says
NO_LOSS = 0.5  # dB: what an output below the goal may lose
FASTER = 0.95  # of the model's time: what a layer must at least bring
LEAST_WORK = 1e6  # multiply-adds a sample, of the layers: less is too little to time


def choose_integer_layers(
    sites: Sites, samples: Samples, compile: Compile, macs: Mapping[fx.Node, int]
) -> tuple[Sites, tuple[Step, ...]]:
    """The sites, or those with recurrent layers that multiply integers.

    All such layers are tried together; where they add too much noise, one after the other, those
    with the most multiply-adds first. Without OpenVINO nothing is timed, and all stay float.
    macs: multiply-adds of each node, a sample.
    """
    few = samples.subset(TRIAL_SAMPLES)
    layers = sorted(sites.may_be_integer_layers, key=lambda root: -macs.get(root, 0))
    work = {root: macs.get(root, 0) for root in layers}
    if find_spec("openvino") is None or sum(work.values()) < LEAST_WORK:
        return sites, ()
    reference = FloatReference(sites.graph.module, few.measuring)
    goal, inputs = max(GOAL, sites.config.target_sqnr), few.measuring[0]

    def tried(sites: Sites) -> tuple[Sites, fx.GraphModule, float]:
        module = convert_with_few(sites, few).module
        return sites, module, reference.noise(module).sqnr

    before = best = tried(sites)
    worst = before[2]
    for roots in _groups(work):
        trial = tried(best[0].with_activations(dict.fromkeys(roots, "static")))
        worst = min(worst, trial[2])
        alone = tried(_all_float_but(trial[0], roots))
        if alone[2] < goal or trial[2] < min(goal, before[2] - NO_LOSS):
            continue
        if Race(best[1], compile, inputs).ratio(trial[1]) <= FASTER:
            best = trial
        if len(roots) == len(work):
            break
    kept = best is not before
    return best[0], (Step("integer LSTM layers", before[2], best[2] if kept else worst, kept),)


def _all_float_but(sites: Sites, layers: Iterable[fx.Node]) -> Sites:
    """For the noise of these layers alone, which that of the others would hide."""
    return sites.with_float({root: "for a trial" for root in sites if root not in set(layers)})


def _groups(layers: Iterable[fx.Node]) -> list[list[fx.Node]]:
    """What to try in turn: all together, then each."""
    roots = list(layers)
    return [roots, *([root] for root in roots if len(roots) > 1)]
