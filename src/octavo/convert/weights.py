"""Weights as integers, quantized once for all the graphs that are emitted."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..errors import ConversionError
from ..graph import ops
from ..graph.qparams import QSpec, weight_qparams
from ..graph.tensors import attribute


class QuantizedWeights:
    """The integers and scales of a module's weights, each computed when first needed."""

    def __init__(self, module: nn.Module, spec: QSpec) -> None:
        self.module, self.spec = module, spec
        self._found: dict[tuple[str, int, bool], tuple[Tensor, Tensor]] = {}

    def __call__(self, path: str, axis: int, per_channel: bool = True) -> tuple[Tensor, Tensor]:
        """Integers and scales, one scale for each index of `axis`; copies that the caller owns.

        Unless `per_channel`, these scales are all the same. Raises ConversionError for a weight
        that is not finite.
        """
        key = path, axis, per_channel
        if key not in self._found:
            self._found[key] = self._quantized(*key)
        integers, scale = self._found[key]
        return integers.clone(), scale.clone()

    def _quantized(self, path: str, axis: int, per_channel: bool) -> tuple[Tensor, Tensor]:
        value = attribute(self.module, path).detach()
        if not torch.isfinite(value).all():
            raise ConversionError(f"weight {path!r} holds NaN or infinity: it cannot be quantized")
        p = weight_qparams(value, axis, self.spec, per_channel)
        integers = (p.spec.qmin, p.spec.qmax, p.spec.dtype)
        return ops.quantize(value.float(), p.scale, p.zero_point, *integers, axis), p.scale
