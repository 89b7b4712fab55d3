"""Whether two runs that should compute the same did, to rounding."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

EXACT = 60.0  # dB: float32 arithmetic in another order
HALF = 30.0  # dB: the same in float16 or bfloat16
TINY = 1e-5  # what is left of a sum that cancels
TIES = 0.01  # share of integers that may differ: of equal or nearly equal values, either is largest


def difference(expected: Sequence[Any], got: Sequence[Any], least: float = EXACT) -> str:
    """How the outputs of a run differ from those expected; an empty string if they agree.

    least: the SQNR in dB that floating point tensors must have.
    """
    if len(expected) != len(got):
        return f"{len(got)} outputs instead of {len(expected)}"
    for i, (e, g) in enumerate(zip(expected, got, strict=True)):
        if found := _difference(e, g, least):
            return f"output {i} has {found}"
    return ""


def agreement(expected: Sequence[Any], got: Sequence[Any]) -> float:
    """The SQNR in dB of the worst floating point output."""
    pairs = [(e.double(), g.double()) for e, g in zip(expected, got, strict=True)
             if isinstance(e, Tensor) and e.is_floating_point()]  # fmt: skip
    energies = ((e.square().sum().item(), (e - g).square().sum().item()) for e, g in pairs)
    return min((_db(*e) for e in energies), default=math.inf)


def _db(energy: float, noise: float) -> float:
    if not noise:
        return math.inf
    return 10 * math.log10(energy / noise) if energy else -math.inf


def _difference(expected: Any, got: Any, least: float) -> str:
    if not isinstance(expected, Tensor) or not isinstance(got, Tensor):
        same = type(expected) is type(got) and expected == got
        return "" if same else f"the value {got!r:.80} instead of {expected!r:.80}"
    if expected.shape != got.shape:
        return f"shape {tuple(got.shape)} instead of {tuple(expected.shape)}"
    if expected.dtype is not got.dtype:
        return f"dtype {got.dtype} instead of {expected.dtype}"
    expected, got = expected.detach().cpu(), got.detach().cpu()
    if expected.is_complex():
        expected, got = (torch.view_as_real(t.resolve_conj()) for t in (expected, got))
    if not expected.is_floating_point():
        share = (expected != got).float().mean().item() if got.numel() else 0.0
        return f"{share:.1%} other numbers" if share > TIES else ""
    if expected.dtype in (torch.float16, torch.bfloat16):
        least = min(least, HALF)
    return _noise(expected.double(), got.double(), least)


def _noise(expected: Tensor, got: Tensor, least: float) -> str:
    """Where one is not finite, the other must be equal; elsewhere noise counts."""
    finite = expected.isfinite()
    if not torch.equal(finite, got.isfinite()):
        return "infinities or NaN elsewhere"
    odd = ~finite
    if not torch.equal(expected[odd].nan_to_num(), got[odd].nan_to_num()):
        return "other infinities or NaN"
    error, signal = (got - expected)[finite], expected[finite]
    noise, energy = (float(t.square().sum()) for t in (error, signal))
    if noise <= energy * 10 ** (-least / 10) or float(error.abs().max()) <= TINY:
        return ""
    return f"other numbers: {_db(energy, noise):.1f} dB from those expected"
