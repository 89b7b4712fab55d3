"""Convert with the methods that the configuration asks for, keeping only what helps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from torch import Tensor, fx

from ..measure import Noise, Step, compare, output_noise
from .bias import correct_biases
from .equalize import equalize
from .rounding import round_weights

if TYPE_CHECKING:
    from ..quantizer import Quantizer

Batches = Sequence[Sequence[Tensor]]
# What Config may ask for, in the order in which it is tried -> what it is called.
METHODS = {"correct_biases": "bias correction", "round_weights": "weight rounding"}
# In dB, on the samples measured on: equalized channels have less room for what is unlike them.
EQUALIZED_GAINS = 0.5


@dataclass(frozen=True)
class Converted:
    """A quantized graph, the noise of each site's value and of the output, and how it came."""

    graph: fx.GraphModule
    noises: dict[str, Noise]
    output: Noise
    steps: tuple[Step, ...] = ()


def convert_tuned(quantizer: Quantizer, tuning: Batches, measuring: Batches) -> Converted:
    """Convert, tune on some samples, and measure on others; a method that does not help is undone.

    Weights are rounded for what biases cannot correct, so the two are judged together.
    """
    graph, steps = quantizer.quantize(), []
    used: tuple[str, ...] = ()
    tried = (
        [m for m in METHODS if getattr(quantizer.config, m)] if quantizer.weighted_sites() else []
    )
    if tried:
        references = [quantizer.module(*inputs) for inputs in measuring]
        best = output_noise(graph, measuring, references)
    for method in tried:
        graph = _emit(quantizer, (method, *used), tuning)
        noise = output_noise(graph, measuring, references)
        kept = noise.ratio <= best.ratio
        steps.append(Step(METHODS[method], best.sqnr, noise.sqnr, kept))
        if kept:
            best, used = noise, (method, *used)
    if steps and not steps[-1].kept:
        graph = _emit(quantizer, used, tuning)
    noises, output = compare(quantizer.module, graph, quantizer.emitted(), measuring)
    return Converted(graph, noises, output, tuple(steps))


def _emit(quantizer: Quantizer, methods: Sequence[str], tuning: Batches) -> fx.GraphModule:
    graph = quantizer.quantize()
    if "round_weights" in methods:
        round_weights(quantizer, graph, tuning, quantizer.config.rounding_seconds)
    if "correct_biases" in methods:
        correct_biases(quantizer, graph, tuning)
    return graph


def equalize_if_better(
    quantizer: Quantizer, tuning: Batches, measuring: Batches
) -> tuple[Quantizer, tuple[Step, ...]]:
    """The quantizer, or one of its graph equalized if that promises a gain and a trial shows it.

    Both are calibrated, corrected and measured on the same few samples.
    """
    module = equalize(quantizer, tuning)
    if module is None:
        return quantizer, ()
    references = [quantizer.module(*inputs) for inputs in measuring]
    before, after = (
        _trial(quantizer.twin(form, observer="minmax"), tuning, measuring, references)
        for form in (quantizer.module, module)
    )
    kept = after.sqnr >= before.sqnr + EQUALIZED_GAINS
    step = Step("equalization", before.sqnr, after.sqnr, kept)
    return quantizer.twin(module) if kept else quantizer, (step,)


def _trial(
    quantizer: Quantizer, tuning: Batches, measuring: Batches, references: Sequence[Any]
) -> Noise:
    """The output's noise with only the samples to tune on as calibration data.

    Of so few, extremes say more than histograms. Biases are corrected if that is better.
    """
    for inputs in tuning:
        quantizer.observe_flat(inputs)
    tried = [[], ["correct_biases"]] if quantizer.config.correct_biases else [[]]
    noises = [
        output_noise(_emit(quantizer, methods, tuning), measuring, references) for methods in tried
    ]
    return min(noises, key=lambda noise: noise.ratio)
