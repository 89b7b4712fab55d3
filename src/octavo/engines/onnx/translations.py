"""ONNX operators for those of Octavo, and for those that torch.onnx translates less well."""

from __future__ import annotations

import operator
from typing import Any

import torch

from ...graph import ops
from .bags import embedding_bag
from .recurrent import KINDS, recurrent

aten = torch.ops.aten


def translations() -> dict[Any, Any]:
    """The `custom_translation_table` of torch.onnx.export."""
    from onnxscript import opset21 as op

    def quantize(x, scale, zero_point, qmin, qmax, dtype, axis=None):  # type: ignore[no-untyped-def]
        return op.QuantizeLinear(x, scale, zero_point, axis=1 if axis is None else axis)

    def dequantize(q, scale, zero_point=None, axis=None):  # type: ignore[no-untyped-def]
        return op.DequantizeLinear(q, scale, zero_point, axis=1 if axis is None else axis)

    def hardtanh(x, min_val=-1.0, max_val=1.0):  # type: ignore[no-untyped-def]
        # bounds as constants, without the casts of torch.onnx, which hide them from ONNX Runtime
        bounds = (op.Constant(value_float=float(v)) for v in (min_val, max_val))
        return op.Clip(x, *bounds)

    def floor_quotient(a, b):  # type: ignore[no-untyped-def]
        # of sizes; torch.onnx divides as if none were negative, which differences of sizes may be
        a, b = (op.Constant(value_int=n) if isinstance(n, int) else n for n in (a, b))
        return op.Div(op.Sub(a, op.Mod(a, b)), b)

    def layer(x, w, r, b, h, c, kind, size):  # type: ignore[no-untyped-def]
        both = w.shape[0] == 2
        how = {"hidden_size": size, "direction": "bidirectional" if both else "forward"}
        if kind == "lstm":
            return op.LSTM(x, w, r, b, None, h, c, **how)
        if kind == "gru":
            return (*op.GRU(x, w, r, b, None, h, linear_before_reset=1, **how), c)
        activations = [KINDS[kind].activation] * (2 if both else 1)
        return (*op.RNN(x, w, r, b, None, h, activations=activations, **how), c)

    return {
        ops.quantize: quantize,
        ops.dequantize: dequantize,
        aten.hardtanh.default: hardtanh,
        operator.floordiv: floor_quotient,
        aten.embedding_bag.padding_idx: embedding_bag,
        recurrent: layer,
    }
