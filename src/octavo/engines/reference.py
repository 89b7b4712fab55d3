"""The reference engine: the quantized graph in PyTorch, on any device."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch

from .base import register_engine

if TYPE_CHECKING:
    from ..model import QuantizedModel


@register_engine("reference")
def reference(model: QuantizedModel) -> Callable[..., Any]:
    """The model itself, without gradients: what the other engines are checked against."""
    return torch.no_grad()(model.forward)
