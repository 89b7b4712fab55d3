"""Bias correction: adjust biases to correct the shift of channel means by quantization.

Sites are corrected in graph order, each on inputs that include the earlier corrections (Nagel et
al. 2019, arXiv 1906.04721, section 4.2, measured rather than derived). The mean that is matched is
the one the next layer reads, after the activation: noise alone shifts the mean of a relu. The float
graph runs alongside, so that the error of every value is known.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, fx

from ..convert import Emission
from ..errors import ConversionError
from ..graph import ops
from ..graph.names import describe, own_path
from ..graph.operators import operator_of, output_axis
from ..graph.tensors import along, attribute, is_constant, new_attribute
from ..sites.rules.base import Weighted
from .layerwise import LayerHook, LayerwiseRunner

STEPS = 2  # of Newton's method, through the activation
PROBE, LARGEST_STEP = 0.05, 0.25  # in standard deviations of a channel
POSITIONS = 256  # per sample, from which spreads and errors are estimated
FLATTEST = 0.05  # smallest slope of an activation at which its mean is corrected


def correct_biases(emission: Emission, runner: LayerwiseRunner) -> LayerHook:
    """For `tune_layers`: correct the biases of the layers with int8 weights."""
    copies = emission.copies
    rules = [r for r in emission.sites.weighted() if r.root in copies and _can_be_shifted(r)]
    emitted = {copies[rule.root]: rule for rule in rules}
    floats = LayerwiseRunner(emission.sites.graph.module, runner.batches)
    float_nodes = iter(floats)

    def hook(node: fx.Node) -> None:
        if node not in emitted:
            return
        rule = emitted[node]
        _run_to(float_nodes, rule.root)
        operator = copies[rule.operator]
        shift = _find_shift(runner, operator, node, floats.values(rule.root))
        _add_to_bias(runner.module, operator, shift)

    return hook


def _run_to(float_nodes: Iterator[fx.Node], root: fx.Node) -> None:
    """Run the float graph up to a site: sites come in the same order in both graphs."""
    for node in float_nodes:
        if node is root:
            return
    raise ConversionError(f"{describe(root)} was emitted out of order")


def _can_be_shifted(rule: Weighted) -> bool:
    """Whether it is one of PyTorch's own layers, on batches, with a constant bias or none."""
    if operator_of(rule.operator).weight_axis is None or not rule.has_batch:
        return False
    bias = rule.operator.args[2]
    return bias is None or is_constant(bias)


def _find_shift(
    runner: LayerwiseRunner, operator: fx.Node, root: fx.Node, reference: Sequence[Tensor]
) -> Tensor:
    """What to add to each channel of `operator` to match the means of `root`, its activation.

    A few outliers, such as one clipped value in each sample, can shift a mean that suits no other
    value: a channel stays as it is if its mean absolute error would grow.
    """
    hints = [n for n in operator.users if n.target is ops.requantize_hint and root is not operator]
    read = hints[0] if hints else operator  # what the activation reads: the same values
    values = runner.values(read)
    rank = values[0].dim()
    axis = output_axis(operator)

    def shifted(shift: Tensor) -> Tensor:
        runner.replace(read, [v + along(shift, axis, rank) for v in values])
        if root is not operator:
            runner.run(root)
        return _means(operator, runner.values(root))

    expected, means = (_means(operator, v) for v in (reference, runner.values(root)))
    plain = _error(operator, reference, runner.values(root))
    if root is operator:
        shift = _beyond_chance(expected - means)
        shifted(shift)
    else:
        spread = _spread(operator, values)
        probe = PROBE * spread + 1e-6
        slope = (shifted(probe) - means).mean(0) / probe
        shift = torch.zeros_like(probe)
        for _ in range(STEPS):
            step = _beyond_chance(expected - means) / slope.clamp(min=FLATTEST)
            step = step.clamp(-LARGEST_STEP * spread, LARGEST_STEP * spread)
            shift = shift + torch.where(slope > FLATTEST, step, 0.0)
            means = shifted(shift)
    worse = _error(operator, reference, runner.values(root)) > plain
    if worse.any():
        shift = torch.where(worse, 0.0, shift)
        shifted(shift)
    return shift


def _beyond_chance(differences: Tensor) -> Tensor:
    """The mean difference of each channel, shrunk where it may be due to chance.

    The mean of n samples has variance v / n. Of a mean m the share 1 - v / (n m^2), where
    positive, is what is not expected by chance.
    """
    mean = differences.mean(0)
    if len(differences) < 2:
        return mean
    chance = differences.var(0) / len(differences)
    return mean * (1 - chance / mean.square().clamp(min=1e-30)).clamp(min=0)


# ---- channels in the output of a convolution (axis 1) or a linear layer (last axis)


def _means(operator: fx.Node, values: Sequence[Tensor]) -> Tensor:
    """(samples, channels): the mean of each channel of each sample."""
    return torch.cat([_by_channel(operator, v).mean(2) for v in values])


def _spread(operator: fx.Node, values: Sequence[Tensor]) -> Tensor:
    """The standard deviation of each channel."""
    variances = [_some(operator, v).var((0, 2), correction=0) for v in values]
    return torch.stack(variances).mean(0).sqrt()


def _error(operator: fx.Node, reference: Sequence[Tensor], values: Sequence[Tensor]) -> Tensor:
    """The mean absolute error of each channel."""
    pairs = zip(values, reference, strict=True)
    errors = [(_some(operator, v) - _some(operator, r)).abs().mean((0, 2)) for v, r in pairs]
    return torch.stack(errors).mean(0)


def _by_channel(operator: fx.Node, value: Tensor) -> Tensor:
    """Reshaped to (samples, channels, all other dimensions)."""
    return value.movedim(output_axis(operator), 1)[..., None].flatten(2)


def _some(operator: fx.Node, value: Tensor) -> Tensor:
    """The same, with evenly spaced positions only, enough to estimate the spread."""
    channels = _by_channel(operator, value)
    return channels[:, :, :: max(channels.shape[2] // POSITIONS, 1)]


def _add_to_bias(module: fx.GraphModule, node: fx.Node, shift: Tensor) -> None:
    bias: Any = node.args[2]
    old = 0 if bias is None else attribute(module, bias.target)
    with module.graph.inserting_before(node):
        path = own_path("corrected", node.name, "bias")
        node.update_arg(2, new_attribute(module, path, old + shift))
