"""Pooling and means."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import fx, nn

from ..patterns import register_pattern
from .base import PassThrough, Rule

if TYPE_CHECKING:
    from ...quantizer import Quantizer


@register_pattern(nn.MaxPool1d)
@register_pattern(nn.MaxPool2d)
@register_pattern(nn.MaxPool3d)
class MaxPool(PassThrough):
    """The largest integer is the largest real."""

    on_integers = False


@register_pattern(nn.AvgPool1d)
@register_pattern(nn.AvgPool2d)
@register_pattern(nn.AvgPool3d)
@register_pattern(nn.AdaptiveAvgPool1d)
@register_pattern(nn.AdaptiveAvgPool2d)
@register_pattern(nn.AdaptiveAvgPool3d)
@register_pattern(torch.mean)
class Average(Rule):
    """Reads integers, sums in float, and has a range of its own."""

    def wants(self, quantizer: Quantizer, output_wanted: bool) -> list[fx.Node]:
        """Its input, if the average is read as integers."""
        return self.activations() if output_wanted else []
