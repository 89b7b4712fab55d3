"""Tune with the methods that the configuration asks for, keeping only what helps."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

from torch import fx

from ..calibrate.ranges import Ranges
from ..calibrate.samples import Samples
from ..convert import Emission, QuantizedWeights, convert
from ..metrics import FloatReference, Noise, Step
from ..sites.sites import Sites
from .biases import correct_biases
from .equalize import equalize
from .layerwise import Method, tune_layers
from .rounding import round_weights

# What Config may ask for, in the order in which each layer gets it.
METHODS: dict[str, tuple[str, Method]] = {
    "round_weights": ("weight rounding", round_weights),
    "correct_biases": ("bias correction", correct_biases),
}
# In dB, on the measuring samples: equalized ranges are tighter, and fit unusual inputs less well.
EQUALIZED_GAINS = 0.5
# Samples to tune on, and as many to measure on, in that trial: fewer of a large network, with many
# positions each, whose multiply-adds for all of them are beyond this.
TRIAL_SAMPLES, FEWEST_SAMPLES, TRIAL_WORK = 8, 4, 3e10


@dataclasses.dataclass(frozen=True)
class Tuned:
    """A quantized graph, and the noise of its output and sites on the measuring samples."""

    emission: Emission
    output: Noise
    sites: Mapping[fx.Node, Noise]
    steps: tuple[Step, ...] = ()


def measured(emission: Emission, reference: FloatReference) -> Tuned:
    """A graph with its noise."""
    output, sites = reference.compare(emission.module, emission.values, emission.integers)
    return Tuned(emission, output, sites)


def tune(emission: Emission, samples: Samples, reference: FloatReference) -> Tuned:
    """Tune on some samples and measure on others; what does not help is undone.

    Weight rounding minimizes what bias correction cannot correct: the two together are tried first,
    then each alone.
    """
    methods = _methods_for(emission.sites)
    if not methods:
        return measured(emission, reference)
    plain: Noise | None = None
    steps = []
    alone = [[m] for m in methods] if len(methods) > 1 else []
    for names in [methods, *alone]:
        trial = measured(tuned_by(emission, names, samples), reference)
        plain = plain or reference.noise(emission.module)  # after it: the float outputs are known
        steps.append(judged(" and ".join(METHODS[m][0] for m in names), plain, trial.output))
        if steps[-1].kept:
            return dataclasses.replace(trial, steps=tuple(steps))
    return dataclasses.replace(measured(emission, reference), steps=tuple(steps))


def _methods_for(sites: Sites) -> list[str]:
    """The methods that the settings ask for, of any site."""
    if not sites.weighted():
        return []
    rounds = any(sites.settings[rule.root].round_weights for rule in sites.weighted())
    asked = {"round_weights": rounds, "correct_biases": sites.config.correct_biases}
    return [method for method in METHODS if asked[method]]


def judged(method: str, before: Noise, after: Noise, gain: float = 0.0) -> Step:
    """The result of a trial: kept if the SQNR rose by at least `gain` dB, or did not fall."""
    return Step(method, before.sqnr, after.sqnr, after.sqnr >= before.sqnr + gain)


def tuned_by(emission: Emission, names: Sequence[str], samples: Samples) -> Emission:
    """The graph tuned with these methods, whether they help or not."""
    if not names:
        return emission
    return tune_layers(emission, samples.tuning, *(METHODS[m][1] for m in names))


def equalize_if_better(
    sites: Sites, samples: Samples, macs: int = 0
) -> tuple[Sites, tuple[Step, ...]]:
    """The sites, or those of the graph equalized if a trial shows a gain.

    Both are calibrated, corrected and measured on the same few samples. macs: multiply-adds of one.
    """
    graph = equalize(sites, samples.tuning)
    if graph is None:
        return sites, ()
    most = TRIAL_WORK // max(macs, 1)
    few = samples.subset(int(min(max(most, FEWEST_SAMPLES), TRIAL_SAMPLES)))
    reference = FloatReference(sites.graph.module, few.measuring)
    equalized = sites.on(graph)
    before, after = (_trial(form, few, reference) for form in (sites, equalized))
    step = judged("equalization", before, after, EQUALIZED_GAINS)
    return equalized if step.kept else sites, (step,)


def _trial(sites: Sites, samples: Samples, reference: FloatReference) -> Noise:
    """The output's noise, biases corrected, calibrated with the samples to tune on alone."""
    methods = ["correct_biases"] if sites.config.correct_biases else []
    emission = convert_with_few(sites, samples)
    return reference.noise(tuned_by(emission, methods, samples).module)


def convert_with_few(sites: Sites, samples: Samples) -> Emission:
    """For a trial: calibrated with the samples to tune on alone."""
    ranges = extremes_of(sites, samples)
    return convert(sites, ranges, QuantizedWeights(sites.graph.module, sites.weight_spec))


def extremes_of(sites: Sites, samples: Samples) -> Ranges:
    """The extremes over the samples to tune on: of so few, better than what histograms leave."""
    ranges = Ranges(sites, observer="minmax")
    for inputs in samples.tuning:
        ranges.observe(inputs)
    return ranges
