"""Bias correction: quantization shifts the mean of a channel; its bias takes the shift back.

Site by site in graph order, each with inputs that earlier corrections have reached already (Nagel
et al. 2019, arXiv 1906.04721, section 4.2, measured rather than derived). What is made equal is
the mean that the next layer reads, after the activation: noise alone moves the mean of a relu.
The float graph runs alongside, so that an error is known value by value.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, fx

from ..graph.names import own_path
from ..graph.tensors import along, attribute, new_attribute
from ..passes.batch_norm import OUTPUT_AXIS
from .layerwise import Runs, Visit

if TYPE_CHECKING:
    from ..quantizer import Quantizer
    from ..sites.rules import Weighted

aten = torch.ops.aten

STEPS = 2  # of Newton's method, through the activation
PROBE, LARGEST_STEP = 0.05, 0.25  # in standard deviations of a channel
POSITIONS = 256  # of a sample's that spreads and errors are taken of
FLATTEST = 0.05  # where an activation hardly moves with its input, its mean is left alone


def correct_biases(quantizer: Quantizer, runs: Runs) -> Visit:
    """For `tune_layers`: correct the biases of the layers with int8 weights."""
    sites = [rule for rule in quantizer.weighted_sites() if _can_be_shifted(quantizer, rule)]
    copies = quantizer.conversion.copies
    emitted = {copies[rule.root]: rule for rule in sites}
    floats = Runs(quantizer.module, runs.batches)
    passed = iter(floats)  # in the order in which the sites were emitted

    def visit(node: fx.Node) -> None:
        if node not in emitted:
            return
        rule = emitted[node]
        next(n for n in passed if n is rule.root)
        operator = copies[rule.operator]
        shift = _find_shift(runs, operator, node, floats.values(rule.root))
        _add_to_bias(runs.module, operator, shift)

    return visit


def _can_be_shifted(quantizer: Quantizer, rule: Weighted) -> bool:
    """Whether it is one of PyTorch's own layers, on batches, with a constant bias or none."""
    if rule.operator.target not in OUTPUT_AXIS or not rule.batched(quantizer):
        return False
    bias: Any = rule.operator.args[2]
    return bias is None or bias.op == "get_attr"


def _find_shift(
    runs: Runs, operator: fx.Node, root: fx.Node, reference: Sequence[Tensor]
) -> Tensor:
    """What to add to each channel of `operator` for the means of `root`, its activation.

    A few values far off, such as a clipped outlier in each sample, have a mean that is no
    other's: where the mean magnitude of the error would grow, a channel stays as it is.
    """
    values = runs.values(operator)
    rank = values[0].dim()
    axis = _channel_axis(operator, rank)

    def shifted(shift: Tensor) -> Tensor:
        runs.replace(operator, [v + along(shift, axis, rank) for v in values])
        if root is not operator:
            runs.run(root)
        return _means(operator, runs.values(root))

    expected, means = (_means(operator, v) for v in (reference, runs.values(root)))
    plain = _error(operator, reference, runs.values(root))
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
    worse = _error(operator, reference, runs.values(root)) > plain
    if worse.any():
        shift = torch.where(worse, 0.0, shift)
        shifted(shift)
    return shift


def _beyond_chance(differences: Tensor) -> Tensor:
    """The mean difference of each channel, less where it may be chance.

    The mean of n samples has variance v / n. Of a mean m the share 1 - v / (n m^2), where
    positive, is what is not expected by chance.
    """
    mean = differences.mean(0)
    if len(differences) < 2:
        return mean
    chance = differences.var(0) / len(differences)
    return mean * (1 - chance / mean.square().clamp(min=1e-30)).clamp(min=0)


# ---- channels of what a convolution (axis 1) or a linear layer (last axis) computes


def _channel_axis(operator: fx.Node, rank: int) -> int:
    return rank - 1 if operator.target is aten.linear.default else 1


def _means(operator: fx.Node, values: Sequence[Tensor]) -> Tensor:
    """(samples, channels): the mean of each channel of each sample."""
    return torch.cat([_by_channel(operator, v).mean(2) for v in values])


def _spread(operator: fx.Node, values: Sequence[Tensor]) -> Tensor:
    """The standard deviation of each channel."""
    variances = [_some(operator, v).var((0, 2), correction=0) for v in values]
    return torch.stack(variances).mean(0).sqrt()


def _error(operator: fx.Node, reference: Sequence[Tensor], values: Sequence[Tensor]) -> Tensor:
    """The mean magnitude of the error of each channel."""
    pairs = zip(values, reference, strict=True)
    errors = [(_some(operator, v) - _some(operator, r)).abs().mean((0, 2)) for v, r in pairs]
    return torch.stack(errors).mean(0)


def _by_channel(operator: fx.Node, value: Tensor) -> Tensor:
    """(samples, channels, all else)."""
    return value.movedim(_channel_axis(operator, value.dim()), 1)[..., None].flatten(2)


def _some(operator: fx.Node, value: Tensor) -> Tensor:
    """The same, with a regular choice of all else, enough to see how far values spread."""
    channels = _by_channel(operator, value)
    return channels[:, :, :: max(channels.shape[2] // POSITIONS, 1)]


def _add_to_bias(module: fx.GraphModule, node: fx.Node, shift: Tensor) -> None:
    bias: Any = node.args[2]
    old = 0 if bias is None else attribute(module, bias.target)
    with module.graph.inserting_before(node):
        path = own_path("corrected", node.name, "bias")
        node.update_arg(2, new_attribute(module, path, old + shift))
