"""Weights as integers, quantized once for all the graphs that are emitted."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..errors import ConversionError
from ..graph import ops
from ..graph.qparams import QSpec, choose_qparams, weight_qparams
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

    def beside(self, path: str, other: str, ratio: float) -> list[tuple[Tensor, Tensor]]:
        """Integers and scales of an LSTM's weights of inputs and state, whose products are added.

        Kernels add integers: each row of the first has `ratio` times the scale of the same row of
        the other. The input gate and the forget gate of a unit have one scale: OpenVINO 2026.4
        applies the scales of either to the other.
        """
        weights = [self._finite(path) / ratio, self._finite(other)]
        both = torch.cat(weights, 1)
        gates = both.abs().amax(1).unflatten(0, (4, -1))
        largest = torch.cat([gates[:2].amax(0).expand(2, -1), gates[2:]]).flatten()
        p = choose_qparams(-largest, largest, self.spec, 0)
        integers = (p.spec.qmin, p.spec.qmax, p.spec.dtype)
        q = ops.quantize(both, p.scale, p.zero_point, *integers, 0)
        first, second = (t.contiguous() for t in q.split([w.shape[1] for w in weights], 1))
        return [(first, p.scale * ratio), (second, p.scale)]

    def _quantized(self, path: str, axis: int, per_channel: bool) -> tuple[Tensor, Tensor]:
        value = self._finite(path)
        p = weight_qparams(value, axis, self.spec, per_channel)
        integers = (p.spec.qmin, p.spec.qmax, p.spec.dtype)
        return ops.quantize(value, p.scale, p.zero_point, *integers, axis), p.scale

    def _finite(self, path: str) -> Tensor:
        value = attribute(self.module, path).detach()
        if not torch.isfinite(value).all():
            raise ConversionError(f"weight {path!r} holds NaN or infinity: it cannot be quantized")
        finite: Tensor = value.float()
        return finite
