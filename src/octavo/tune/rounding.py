"""Weight rounding: each weight's rounding error is compensated by weights not yet rounded.

Layers are rounded in graph order, on their quantized inputs, one input at a time, with the least
squares update of GPTQ (Frantar et al. 2022, arXiv 2210.17323), here for linear layers and for
convolutions, including depthwise ones. First each output channel gets the scale of least squared
error. Both steps weight errors by how the inputs vary around their means: bias correction removes
shifts of the mean.
"""

from __future__ import annotations

import itertools
import math
import time
from collections import Counter
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, fx

from ..convert import Emission
from ..graph.qparams import QSpec
from ..graph.tensors import constant, set_buffer
from .layerwise import LayerHook, LayerwiseRunner

aten = torch.ops.aten

LAYERS = {aten.conv1d.default, aten.conv2d.default, aten.linear.default}
SHARES = torch.linspace(1.0, 0.6, 21)  # candidate scales, relative to the one that clips nothing
DAMPING = 0.01  # relative to the inputs' mean variance, which few samples underestimate
POSITIONS, OF_AN_INPUT = 2_000, 32  # positions sampled in a layer: base, per input
POSITIONS_AN_INPUT = (
    64  # least number of positions per input of an output: with fewer, rounding fits noise
)
BLOCK = 128  # inputs whose updates of all later inputs are applied together


def round_weights(emission: Emission, runner: LayerwiseRunner) -> LayerHook:
    """For `tune_layers`: round the int8 weights of a layer for least output error.

    Layers that come after `Config.rounding_seconds` keep the nearest integers.
    """
    sites, copies = emission.sites, emission.copies
    rules = {copies[r.operator]: r for r in sites.weighted() if r.root in copies}
    readers = Counter(layer.args[1] for layer in rules)
    end = time.monotonic() + sites.config.rounding_seconds

    def hook(node: fx.Node) -> None:
        alone = node in rules and node.target in LAYERS and readers[node.args[1]] == 1
        alone = alone and len(_stored(node).users) == 1  # an embedding may share the integers
        if not alone or not rules[node].has_batch or time.monotonic() > end:
            return
        settings = sites.settings[rules[node].root]
        if not settings.round_weights:
            return
        weight = constant(sites.graph.module, rules[node].weight).float()
        positions = sum(v.numel() for v in runner.values(node)) // len(weight)
        if positions >= POSITIONS_AN_INPUT * weight[0].numel():
            _round_layer(runner, node, weight, sites.weight_spec, bool(settings.per_channel))

    return hook


def _stored(layer: fx.Node) -> fx.Node:
    """The integers of a layer's weight."""
    dequantized: Any = layer.args[1]
    stored: fx.Node = dequantized.args[0]
    return stored


def _round_layer(
    runner: LayerwiseRunner, layer: fx.Node, weight: Tensor, spec: QSpec, per_channel: bool
) -> None:
    """Store better integers and scales for a layer's weight, and run the layer with them."""
    dequantized: Any = layer.args[1]
    stored, stored_scale = dequantized.args[:2]
    read: Any = layer.args[0]
    covariance = _covariance(layer, weight, runner.values(read))
    groups, inputs, _ = covariance.shape
    rows = weight.double().reshape(groups, -1, inputs)
    scale = _best_scale(rows, covariance.diagonal(dim1=1, dim2=2), spec, per_channel)
    integers = _spread_errors(rows, scale, covariance, spec)
    set_buffer(runner.module, stored.target, integers.reshape(weight.shape).to(torch.int8))
    set_buffer(runner.module, stored_scale.target, scale.flatten().float())
    for node in (stored, stored_scale, dequantized, layer):
        runner.run(node)


def _covariance(layer: fx.Node, weight: Tensor, values: Sequence[Tensor]) -> Tensor:
    """(groups, n, n): the covariance of the n inputs of each output of a layer."""
    count, total, products = 0, torch.zeros(()), torch.zeros(())
    origin = None  # near the mean: float32 would lose small variances beside large means
    generator = torch.Generator().manual_seed(0)
    most = POSITIONS + OF_AN_INPUT * weight[0].numel()
    capacity = max(most // sum(len(x) for x in values), 1)
    for x in values:
        columns = _columns(layer, weight, x.float(), capacity, generator)
        origin = columns.mean(2, keepdim=True) if origin is None else origin
        columns = columns - origin
        count += columns.shape[2]
        total = total + columns.sum(2, keepdim=True)
        products = products + columns @ columns.mT
    mean = (total / count).double()
    return (products / count).double() - mean @ mean.mT


def _columns(
    layer: fx.Node, weight: Tensor, x: Tensor, capacity: int, generator: torch.Generator
) -> Tensor:
    """(groups, inputs of an output, positions): a layer's input, `capacity` positions a sample."""
    if layer.target is aten.linear.default:
        rows = x.flatten(0, -2)
        return rows[_some(len(rows), capacity * len(x), generator)].T[None]
    arguments: Any = layer.args[3:7]
    stride, padding, dilation, groups = arguments
    x = F.pad(x, [p for side in reversed(padding) for p in (side, side)])
    kernel, sides = weight.shape[2:], x.shape[2:]
    spans = [d * (k - 1) for d, k in zip(dilation, kernel, strict=True)]
    ends = [(n - span - 1) // s + 1 for n, span, s in zip(sides, spans, stride, strict=True)]
    positions = torch.unravel_index(_some(math.prod(ends), capacity, generator), ends)

    def tap(at: tuple[int, ...]) -> Tensor:  # (samples, channels, positions)
        places = zip(positions, stride, at, dilation, strict=True)
        return x[(..., *(p * s + o * d for p, s, o, d in places))]

    taps = [tap(at) for at in itertools.product(*map(range, kernel))]
    return torch.stack(taps, 2).permute(1, 2, 0, 3).reshape(groups, -1, len(x) * taps[0].shape[2])


def _some(number: int, most: int, generator: torch.Generator) -> Tensor:
    """At most `most` of the integers below `number`, at random."""
    return torch.randperm(number, generator=generator)[:most]


def _best_scale(rows: Tensor, variance: Tensor, spec: QSpec, per_channel: bool) -> Tensor:
    """(groups, outputs, 1): the scale of each output, or of all, with the least squared error."""
    largest = rows.abs().amax(2, keepdim=True).clamp(min=1e-20) / spec.qmax
    largest = largest if per_channel else largest.amax().expand_as(largest)
    errors = []
    for share in SHARES.tolist():
        scale = largest * share
        error = rows - scale * (rows / scale).round().clamp(spec.qmin, spec.qmax)
        errors.append((error.square() * variance[:, None]).sum(2))
    total = torch.stack(errors)
    total = total if per_channel else total.sum((1, 2), keepdim=True).expand_as(total)
    best = total.argmin(0)
    return largest * SHARES.to(largest)[best][..., None]


def _spread_errors(rows: Tensor, scale: Tensor, covariance: Tensor, spec: QSpec) -> Tensor:
    """The integers, each input's rounding error spread over the inputs that follow."""
    variance = covariance.diagonal(dim1=1, dim2=2)
    order = variance.argsort(dim=1, descending=True)  # largest first: most can compensate
    rows = rows.gather(2, order[:, None].expand_as(rows))
    covariance = covariance.gather(1, order[:, :, None].expand_as(covariance))
    covariance = covariance.gather(2, order[:, None].expand_as(covariance))
    damping = DAMPING * variance.mean(1) + 1e-12
    covariance.diagonal(dim1=1, dim2=2).add_(damping[:, None])
    # covariance = left @ left.T with an upper triangular left, so its inverse = upper.T @ upper
    left = torch.linalg.cholesky(covariance.flip(1, 2)).flip(1, 2)
    upper = torch.linalg.solve_triangular(left, torch.eye(len(left[0])).to(left), upper=True)
    integers = torch.empty_like(rows)
    for start in range(0, rows.shape[2], BLOCK):
        stop = min(start + BLOCK, rows.shape[2])
        errors = []
        for i in range(start, stop):
            column = rows[:, :, i : i + 1]
            integers[:, :, i : i + 1] = (column / scale).round().clamp(spec.qmin, spec.qmax)
            error = (column - scale * integers[:, :, i : i + 1]) / upper[:, i, i, None, None]
            rows[:, :, i + 1 : stop] -= error * upper[:, None, i, i + 1 : stop]
            errors.append(error)
        rows[:, :, stop:] -= torch.cat(errors, 2) @ upper[:, start:stop, stop:]
    return torch.empty_like(integers).scatter(2, order[:, None].expand_as(integers), integers)
