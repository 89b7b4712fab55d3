"""Convert with the methods that the configuration asks for, keeping only what helps."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from torch import Tensor, fx

from ..calibrate.data import batch_size, some_samples
from ..capture.signature import Call
from ..metrics import Noise, Step, compare, output_noise
from .biases import correct_biases
from .equalize import equalize
from .layerwise import Method, tune_layers
from .rounding import round_weights

if TYPE_CHECKING:
    from ..quantizer import Quantizer

Batches = Sequence[Sequence[Tensor]]
# What Config may ask for, in the order in which each layer gets it.
METHODS: dict[str, tuple[str, Method]] = {
    "round_weights": ("weight rounding", round_weights),
    "correct_biases": ("bias correction", correct_biases),
}
# In dB, on the samples measured on: equalized channels have less room for what is unlike them.
EQUALIZED_GAINS = 0.5
TRIAL_SAMPLES = 8  # tuned on and measured on to see that


@dataclasses.dataclass(frozen=True)
class Converted:
    """A quantized graph, the noise on the samples measured on, and how it came."""

    graph: fx.GraphModule
    output: Noise
    sites: dict[str, Noise]
    steps: tuple[Step, ...] = ()


class Evidence:
    """Flat inputs to tune with, and others, with the float model's outputs, to measure noise on.

    Without any to tune with, those to measure on serve for both. Where they are not `batched`, each
    is one sample.
    """

    def __init__(
        self, module: fx.GraphModule, tuning: Batches, measuring: Batches, batched: bool = True
    ) -> None:
        self.module, self.tuning, self.measuring = module, tuning or measuring, measuring
        self.batched = batched
        self._references: list[Any] | None = None

    def part(self, samples: int) -> Evidence:
        """Fewer of both, for a trial."""
        tuning, measuring = (
            list(_first(batches, samples, self.batched))
            for batches in (self.tuning, self.measuring)
        )
        return Evidence(self.module, tuning, measuring, self.batched)

    def noise(self, graph: fx.GraphModule) -> Noise:
        """The noise of a graph's output."""
        if self._references is None:
            self._references = [self.module(*inputs) for inputs in self.measuring]
        return output_noise(graph, self.measuring, self._references)

    def measured(self, quantizer: Quantizer, graph: fx.GraphModule) -> Converted:
        """A graph that `quantizer` has emitted, with its noise."""
        pairs = quantizer.emitted()
        output, sites, self._references = compare(quantizer.module, graph, pairs, self.measuring)
        return Converted(graph, output, sites)


def _first(batches: Batches, samples: int, batched: bool) -> Iterator[Sequence[Tensor]]:
    for inputs in batches:
        if samples > 0:
            call: Call = (tuple(inputs), {})
            yield some_samples(call, 0, samples, batched)[0]
            samples -= batch_size(call, batched)


def convert_tuned(quantizer: Quantizer, evidence: Evidence) -> Converted:
    """Convert, tune on some samples, and measure on others; what does not help is undone.

    Weights are rounded for what biases cannot correct: the two together, or else one of them.
    """
    graph = quantizer.quantize()
    wanted = [m for m in METHODS if getattr(quantizer.config, m)]
    if not wanted or not quantizer.weighted_sites():
        return evidence.measured(quantizer, graph)
    plain, steps = None, []
    alone = [[m] for m in wanted] if len(wanted) > 1 else []
    for methods in [wanted, *alone]:
        tried = evidence.measured(quantizer, _emit(quantizer, methods, evidence))
        plain = plain or evidence.noise(graph)  # after it: the float outputs are known
        kept = tried.output.ratio <= plain.ratio
        name = " and ".join(METHODS[m][0] for m in methods)
        steps.append(Step(name, plain.sqnr, tried.output.sqnr, kept))
        if kept:
            return dataclasses.replace(tried, steps=tuple(steps))
    plainly = evidence.measured(quantizer, quantizer.quantize())
    return dataclasses.replace(plainly, steps=tuple(steps))


def _emit(quantizer: Quantizer, methods: Sequence[str], evidence: Evidence) -> fx.GraphModule:
    graph = quantizer.quantize()
    if methods:
        tune_layers(quantizer, graph, evidence.tuning, *(METHODS[m][1] for m in methods))
    return graph


def equalize_if_better(
    quantizer: Quantizer, evidence: Evidence
) -> tuple[Quantizer, tuple[Step, ...]]:
    """The quantizer, or one of its graph equalized if that promises a gain and a trial shows it.

    Both are calibrated, corrected and measured on the same few samples.
    """
    module = equalize(quantizer, evidence.tuning)
    if module is None:
        return quantizer, ()
    few = evidence.part(TRIAL_SAMPLES)
    before, after = (
        _trial(quantizer.twin(form, observer="minmax"), few) for form in (quantizer.module, module)
    )
    kept = after.sqnr >= before.sqnr + EQUALIZED_GAINS
    step = Step("equalization", before.sqnr, after.sqnr, kept)
    return quantizer.twin(module) if kept else quantizer, (step,)


def _trial(quantizer: Quantizer, evidence: Evidence) -> Noise:
    """The output's noise, biases corrected, with only the samples to tune on as calibration data.

    Of so few, extremes say more than histograms.
    """
    for inputs in evidence.tuning:
        quantizer.observe_flat(inputs)
    methods = ["correct_biases"] if quantizer.config.correct_biases else []
    return evidence.noise(_emit(quantizer, methods, evidence))
