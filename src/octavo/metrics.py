"""Measure what quantization did: signal to quantization noise ratio (SQNR) in dB."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx

from .graph import ops


class Noise:
    """Energy of a signal and of the difference to it, summed over tensors.

    >>> noise = Noise()
    >>> noise.add(torch.tensor([3.0, 4.0]), torch.tensor([3.0, 4.5]))
    >>> noise.sqnr
    20.0
    """

    def __init__(self) -> None:
        self.signal = self.noise = 0.0

    def add(self, reference: Tensor, value: Tensor) -> None:
        """Take in one pair of tensors of the same shape."""
        noise, signal = _energy(reference - value), _energy(reference)
        if not math.isfinite(noise + signal):  # infinity less infinity, as masks have, is no noise
            unequal = reference != value
            noise = _energy(reference[unequal] - value[unequal])
            signal = _energy(reference[torch.isfinite(reference)])
        self.noise += noise
        self.signal += signal

    @property
    def ratio(self) -> float:
        """Noise energy over signal energy, 0 where there is no noise."""
        if self.noise == 0:
            return 0.0
        return self.noise / self.signal if self.signal else math.inf

    @property
    def sqnr(self) -> float:
        """10 log10(signal / noise) in dB: infinite without noise, -infinite without signal."""
        if self.ratio == 0:
            return math.inf
        return -10 * math.log10(self.ratio) if math.isfinite(self.ratio) else -math.inf


@dataclass(frozen=True)
class Step:
    """What a method did to the output's SQNR in dB, and whether its result was kept."""

    method: str
    before: float
    after: float
    kept: bool


def _energy(t: Tensor) -> float:
    flat = t.detach().reshape(-1)
    return float(torch.dot(flat, flat))


def sqnr(reference: Any, value: Any) -> float:
    """SQNR in dB of a tensor, or the worst of several (same structure), against a reference.

    >>> round(sqnr(torch.tensor([3.0, 4.0]), torch.tensor([3.0, 4.5])), 3)
    20.0
    """
    pairs = zip(_floats(reference), _floats(value), strict=True)
    worst = math.inf
    for r, v in pairs:
        noise = Noise()
        noise.add(r, v)
        worst = min(worst, noise.sqnr)
    return worst


def _floats(value: Any) -> list[Tensor]:
    leaves = torch.utils._pytree.tree_leaves(value)
    return [t for t in leaves if isinstance(t, Tensor) and t.is_floating_point()]


class _Keeping(fx.Interpreter):
    """Runs a graph and hands each node's value on."""

    def __init__(self, module: fx.GraphModule, see: Any) -> None:
        super().__init__(module)
        self.extra_traceback = False
        self.see = see

    def run_node(self, n: fx.Node) -> Any:
        value = super().run_node(n)
        self.see(n, value, self.env)
        return value


@torch.no_grad()
def compare(
    float_module: fx.GraphModule,
    quantized: fx.GraphModule,
    pairs: Mapping[str, fx.Node],
    batches: Sequence[Sequence[Tensor]],
) -> tuple[Noise, dict[str, Noise], list[Any]]:
    """Noise of the output (the noisiest) and of each named value, over a few batches.

    The float outputs, which it needs anyway, come with them.
    pairs: name of a float node -> the quantized graph's node for the same value.
    """
    outputs: list[Noise] = []
    references: list[Any] = []
    noises = {name: Noise() for name in pairs}
    names = {node: name for name, node in pairs.items()}
    for inputs in batches:
        kept: dict[str, Tensor] = {}

        def keep(n: fx.Node, value: Any, env: dict, kept: dict = kept) -> None:
            if n.name in noises and isinstance(value, Tensor) and value.is_floating_point():
                kept[n.name] = value

        def against(n: fx.Node, value: Any, env: dict, kept: dict = kept) -> None:
            if n in names and names[n] in kept:
                if "qparams" in n.meta:
                    value = ops.dequantize(value, *(env[a] for a in n.meta["qparams"]))
                noises[names[n]].add(kept.pop(names[n]), value)

        references.append(_Keeping(float_module, keep).run(*inputs))
        _add_outputs(outputs, references[-1], _Keeping(quantized, against).run(*inputs))
    return _noisiest(outputs), noises, references


@torch.no_grad()
def output_noise(
    module: fx.GraphModule, batches: Sequence[Sequence[Tensor]], references: Sequence[Any]
) -> Noise:
    """Noise of a graph's outputs (the noisiest) against reference outputs, over a few batches."""
    outputs: list[Noise] = []
    for inputs, reference in zip(batches, references, strict=True):
        _add_outputs(outputs, reference, module(*inputs))
    return _noisiest(outputs)


def _add_outputs(outputs: list[Noise], reference: Any, value: Any) -> None:
    pairs = list(zip(_floats(reference), _floats(value), strict=True))
    outputs += [Noise() for _ in pairs[len(outputs) :]]
    for noise, (r, v) in zip(outputs, pairs, strict=True):
        noise.add(r, v)


def _noisiest(outputs: list[Noise]) -> Noise:
    # an output of zeros has no signal to compare noise with
    heard = [o for o in outputs if o.signal > 0] or outputs
    return max(heard, key=lambda o: o.ratio, default=Noise())
