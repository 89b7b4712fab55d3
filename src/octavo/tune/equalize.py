"""Equalization: move a scale per channel from the layers that produce a value to its consumers.

The float model computes the same; the channels of the value get similar ranges, so that one scale
suits all of them. One mechanism covers cross-layer equalization of relu pairs (Nagel et al. 2019,
arXiv 1906.04721), layer norm before linear layers (SmoothQuant, Xiao et al. 2022, arXiv
2211.10438), residual streams, and the inputs of depthwise convolutions. If no layer before a linear
layer can absorb the scale, a division is inserted instead.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, fx

from ..capture.float_graph import FloatGraph, copied
from ..graph.builder import NodeBuilder
from ..graph.interpreter import observe_values
from ..graph.names import own_path
from ..graph.notes import note_float_reason, trained_statistics
from ..graph.operators import is_operator, operator_of
from ..graph.tensors import along, attribute, new_attribute
from ..graph.verify import checkpoint
from ..sites.sites import Sites
from .channels import Group, find_groups, find_open_groups

aten = torch.ops.aten

EXPONENTS = (0.25, 0.5, 0.75, 1.0)  # powers of a channel's range relative to the largest
WORTH_IT = 0.7  # largest share of a group's predicted noise left: a smaller gain is not kept
WORTH_DIVIDING = 0.5  # the same, where an operator is added
SMALLEST = 1 / 32  # smallest scale: channels small in calibration may be larger at inference
SILENT = 1e-6  # channels below this share of the largest range are not scaled
HEADROOM = 1.25  # margin of a channel over its observed range
FAR = 6  # standard deviations a channel may reach, known from a folded batch norm


@torch.no_grad()
def equalize(sites: Sites, batches: Sequence[Sequence[Tensor]]) -> FloatGraph | None:
    """The float graph with its channels equalized; None where there is nothing to equalize.

    Each group of values gets the scales of least predicted noise in its consumers. batches: flat
    inputs, a few samples.
    """
    result = copied(sites.graph)
    module = result.module
    groups = find_groups(module.graph)
    groups += find_open_groups(module.graph, groups)
    kept = {sites.rules[root].operator.name for root, s in sites.settings.items() if not s.equalize}
    groups = [g for g in groups if not any(n.name in kept for n in (*g.producers, *g.consumers))]
    demanded = {node.name for node in sites.demand.specs}
    seen = _channels(module, groups, demanded, batches)
    moved = False
    for group in groups:
        scale, plain, least = _best_scale(module, group, seen, sites.weight_spec.qmax)
        if least < (WORTH_IT if group.producers else WORTH_DIVIDING) * plain:
            if not group.producers:
                _divide(module, group, scale)
            move_scale(module, group, scale)
            moved = True
    module.graph.eliminate_dead_code()
    module.recompile()
    checkpoint(module, "equalize")
    return result if moved else None


# ---- choosing a scale


class Channels:
    """Extremes and moments of each channel of a value, over batches."""

    low: Tensor
    high: Tensor
    total: Tensor
    squares: Tensor
    count = 0

    def add(self, value: Tensor, axis: int) -> None:
        """Add one tensor."""
        flat = value.movedim(axis, 0).flatten(1).float()
        if not self.count:
            self.low = self.high = self.total = self.squares = flat.new_zeros(len(flat))
        self.low = torch.minimum(self.low, flat.amin(1))
        self.high = torch.maximum(self.high, flat.amax(1))
        self.total = self.total + flat.sum(1)
        self.squares = self.squares + flat.square().sum(1)
        self.count += flat.shape[1]

    @property
    def largest(self) -> Tensor:
        """The largest magnitude of each channel."""
        return torch.maximum(-self.low, self.high)

    @property
    def variance(self) -> Tensor:
        """The variance of each channel."""
        mean = self.total / self.count
        return (self.squares / self.count - mean.square()).clamp(min=0)


def _channels(
    module: fx.GraphModule,
    groups: Sequence[Group],
    demanded: set[str],
    batches: Sequence[Sequence[Tensor]],
) -> dict[fx.Node, Channels]:
    """The channels of each value that is to be quantized."""
    axes = {v: axis for g in groups for v, axis in g.values.items() if v.name in demanded}
    seen = {value: Channels() for value in axes}

    def see(node: fx.Node, value: Any) -> None:
        if node in axes:
            seen[node].add(value, axes[node])

    for inputs in batches if axes else ():
        observe_values(module, inputs, see)
    return seen


def _best_scale(
    module: fx.GraphModule, group: Group, seen: dict[fx.Node, Channels], largest: int
) -> tuple[Tensor, float, float]:
    """The scale of least noise in the outputs of the group's consumers; noise without and with it.

    largest: the largest integer of a weight.
    """
    looked = [seen[v] for v in group.values if v in seen]
    read: dict[fx.Node, Any] = {layer: layer.args[0] for layer in group.consumers}
    readers = [
        _Reader(module, layer, seen[value], group.channels)
        for layer, value in read.items()
        if value in seen
    ]
    plain = torch.ones(group.channels)
    if not readers:
        return plain, 0.0, 0.0
    share = _shares(group, looked)
    scales = [plain, *(share.pow(e).clamp(min=SMALLEST) for e in EXPONENTS)]
    noises = [sum(reader.noise(scale, largest) for reader in readers) for scale in scales]
    least = min(range(1, len(scales)), key=noises.__getitem__)
    return scales[least], noises[0], noises[least]


def _shares(group: Group, looked: Sequence[Channels]) -> Tensor:
    """Each channel's range over the largest one's.

    A channel that is idle in the few calibration samples may be active at inference: a folded batch
    norm records the mean and spread that it had in training.
    """
    most = torch.stack([c.largest.amax() for c in looked]).amax().clamp(min=1e-30)
    shares = [HEADROOM * c.largest / c.largest.amax().clamp(min=1e-30) for c in looked]
    positive = all(bool((c.low >= 0).all()) for c in looked)
    for producer in group.producers:
        if (trained := trained_statistics(producer)) is not None:
            mean, deviation = trained
            far = (mean if positive else mean.abs()) + FAR * deviation
            shares.append((far / most).clamp(min=0))
    share = torch.stack(shares).amax(0).clamp(max=1)
    return torch.where(share < SILENT, 1.0, share)


class _Reader:
    """A layer that reads the value of a group, and the noise to expect in its output."""

    def __init__(
        self, module: fx.GraphModule, layer: fx.Node, seen: Channels, channels: int
    ) -> None:
        path: Any = layer.args[1]
        weight = attribute(module, path.target).detach().float()
        weight = weight.transpose(0, 1) if operator_of(layer).weight_axis == 1 else weight
        inputs = weight.shape[1]
        self.groups = channels // inputs
        kernels = weight.reshape(self.groups, len(weight) // self.groups, inputs, -1)
        self.taps = kernels.shape[3]
        self.largest = kernels.abs().amax(3)  # (groups, outputs, inputs)
        self.energy = kernels.square().sum((1, 3))  # (groups, inputs)
        self.variance = seen.variance.view(self.groups, -1)
        self.low, self.high = seen.low, seen.high
        self.signal = (self.energy * self.variance).sum().clamp(min=1e-30)

    def noise(self, scale: Tensor, qmax: int) -> float:
        """Predicted noise over signal with the input divided by `scale`.

        Both rounding errors are taken as independent and uniform, of variance step**2 / 12; means
        are left out, since bias correction removes them. qmax: the largest integer of a weight.
        """
        s = scale.view(self.groups, -1)
        step = ((self.high / scale).amax() - (self.low / scale).amin()) / 255
        of_input = step**2 / 12 * (self.energy * s.square()).sum()
        steps = (self.largest * s[:, None]).amax(2) / qmax  # (groups, outputs)
        varied = self.taps * (self.variance / s.square()).sum(1, keepdim=True)
        of_weight = (steps.square() / 12 * varied).sum()
        return float((of_input + of_weight) / self.signal)


# ---- moving a scale


def move_scale(module: fx.GraphModule, group: Group, scale: Tensor) -> None:
    """Divide all values of a group by `scale`, one number per channel; their consumers multiply."""
    for layer in group.producers:
        at = 2 if is_operator(layer, "layer_norm") else 1
        axis = operator_of(layer).weight_axis or 0
        weight = _parameter(module, layer, at, scale)
        _set_parameter(module, layer, at, weight / along(scale, axis, weight.dim()))
        if layer.args[at + 1] is not None:
            _set_parameter(module, layer, at + 1, _parameter(module, layer, at + 1, scale) / scale)
    for layer in group.consumers:
        weight = _parameter(module, layer, 1, scale)
        _set_parameter(module, layer, 1, weight * _along_inputs(layer, weight, scale))
    for node, axis in group.values.items():
        if is_operator(node, "clamp", "hardtanh"):
            _clamp_channels(module, node, along(scale, axis, node.meta["val"].dim())[0])


def _divide(module: fx.GraphModule, group: Group, scale: Tensor) -> None:
    """Insert a division by the scale before the consumers of an open group.

    Engines fuse the division with the quantization of the value. Clears the group's values, which
    are not scaled themselves.
    """
    ((value, _),) = group.values.items()
    with module.graph.inserting_after(value):
        divided = NodeBuilder(module.graph, value).node(
            aten.div.Tensor, (value, value), {}, value.meta["val"]
        )
    note_float_reason(divided, "scales channels to the same range, for the layers that read it")
    divided.args = (value, _new(module, divided, "scale", scale))
    for layer in group.consumers:
        layer.replace_input_with(value, divided)
    group.values.clear()


def _along_inputs(layer: fx.Node, weight: Tensor, scale: Tensor) -> Tensor:
    """`scale` in the shape that multiplies a weight's input channels."""
    if operator_of(layer).weight_axis == 1:
        return along(scale, 0, weight.dim())
    groups = len(scale) // weight.shape[1]
    rows = scale.view(groups, 1, -1).expand(-1, weight.shape[0] // groups, -1)
    return rows.reshape(weight.shape[0], -1, *[1] * (weight.dim() - 2))


def _clamp_channels(module: fx.GraphModule, node: fx.Node, scale: Tensor) -> None:
    """Turn a clip to two numbers into one to two numbers per channel."""
    given: Any = node.args[1:3]
    bounds = [
        bound if bound is None else _new(module, node, name, bound / scale)
        for name, bound in zip(("low", "high"), given, strict=True)
    ]
    node.target, node.args = aten.clamp.Tensor, (node.args[0], *bounds)


def _parameter(module: fx.GraphModule, layer: fx.Node, index: int, like: Tensor) -> Tensor:
    """A parameter of a layer; ones for a weight that a layer norm does without."""
    given = layer.args[index]
    return torch.ones_like(like) if given is None else attribute(module, given.target).detach()


def _set_parameter(module: fx.GraphModule, layer: fx.Node, index: int, value: Tensor) -> None:
    name = "bias" if index == (3 if is_operator(layer, "layer_norm") else 2) else "weight"
    layer.update_arg(index, _new(module, layer, name, value))


def _new(module: fx.GraphModule, node: fx.Node, name: str, value: Tensor) -> fx.Node:
    with module.graph.inserting_before(node):
        return new_attribute(module, own_path("equalized", node.name, name), value)
