"""Convert with the methods that the configuration asks for, keeping only what helps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch import Tensor, fx

from ..measure import Noise, Step, compare, output_noise
from .bias import correct_biases

if TYPE_CHECKING:
    from ..quantizer import Quantizer

Batches = Sequence[Sequence[Tensor]]


@dataclass(frozen=True)
class Converted:
    """A quantized graph, the noise of each site's value and of the output, and how it came."""

    graph: fx.GraphModule
    noises: dict[str, Noise]
    output: Noise
    steps: tuple[Step, ...] = ()


def convert_tuned(quantizer: Quantizer, tuning: Batches, measuring: Batches) -> Converted:
    """Convert, tune on some samples, and measure on others."""
    plain = quantizer.quantize()
    if not quantizer.config.correct_biases or not quantizer.weighted_sites():
        return measured(quantizer, plain, measuring)
    references = [quantizer.module(*inputs) for inputs in measuring]
    before = output_noise(plain, measuring, references)
    correct_biases(quantizer, plain, tuning)
    result = measured(quantizer, plain, measuring)
    kept = result.output.ratio <= before.ratio
    step = Step("bias correction", before.sqnr, result.output.sqnr, kept)
    if not kept:
        result = measured(quantizer, quantizer.quantize(), measuring)
    return Converted(result.graph, result.noises, result.output, (step,))


def measured(quantizer: Quantizer, graph: fx.GraphModule, batches: Batches) -> Converted:
    """A graph that `quantizer` has just emitted, with its noise on some samples."""
    return Converted(graph, *compare(quantizer.module, graph, quantizer.emitted(), batches))
