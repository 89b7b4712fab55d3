"""Measure what quantization did: signal to quantization noise ratio (SQNR) in dB."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx

from .capture.probes import is_comparable
from .graph import ops
from .graph.interpreter import Interpreter

UNLIKE = 3.0  # dB, below which two models are hardly the same


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
        """Add one pair of tensors of the same shape."""
        noise, signal = _energy(reference - value), _energy(reference)
        if not math.isfinite(noise + signal):  # inf - inf, as in masks, is no noise
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
    """What a method did to the output's SQNR in dB, and whether its result was kept.

    gain: in dB, the mean over groups of samples, where it was judged so; spread: the standard error
        of that mean.
    """

    method: str
    before: float
    after: float
    kept: bool
    gain: float | None = None
    spread: float | None = None

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> "Step":
        """From its fields as JSON data has them, infinite numbers as strings."""
        names = ("before", "after", "gain", "spread")
        numbers = {n: float(data[n]) for n in names if data.get(n) is not None}
        return cls(method=data["method"], kept=data["kept"], **numbers)

    def text(self, arrow: str = "->") -> str:
        """In one line."""
        gain = f"{decibels(self.before)} {arrow} {decibels(self.after)} dB"
        if self.gain is not None:
            gain += f", by groups of samples {self.gain:+.2f} ± {self.spread:.2f} dB"
        return f"{self.method}: {gain}" + ("" if self.kept else ", not kept")


def _energy(t: Tensor) -> float:
    flat = t.detach().reshape(-1)
    return float(torch.dot(flat, flat))


def sqnr(reference: Any, value: Any) -> float:
    """SQNR in dB of a tensor, or the worst of several (same structure), against a reference.

    Only floating point tensors count. Equal tensors have an SQNR of inf.

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


class FloatReference:
    """The outputs of the float graph on some batches, to measure quantized graphs against.

    batches: flat inputs. The outputs are computed once, by the first measurement.
    """

    def __init__(self, module: fx.GraphModule, batches: Sequence[Sequence[Tensor]]) -> None:
        self.module, self.batches = module, batches
        self._outputs: list[Any] | None = None
        outputs: Any = module.graph.output_node().args[0]
        comparable = [isinstance(n, fx.Node) and is_comparable(n) for n in outputs]
        self._measured = [i for i, c in enumerate(comparable) if c]

    @torch.no_grad()
    def noise(self, module: Callable[..., Any]) -> Noise:
        """The noise of the noisiest output of a graph, which may be compiled."""
        if self._outputs is None:
            self._outputs = [self.module(*inputs) for inputs in self.batches]
        outputs: list[Noise] = []
        for inputs, reference in zip(self.batches, self._outputs, strict=True):
            self._add(outputs, reference, module(*inputs))
        return _noisiest(outputs)

    def compare(
        self,
        module: fx.GraphModule,
        values: Mapping[fx.Node, fx.Node],
        integers: Mapping[fx.Node, tuple[fx.Node, fx.Node]],
    ) -> tuple[Noise, dict[fx.Node, Noise]]:
        """The noise of a graph's noisiest output, and of each of the given values.

        values: node of the float graph -> the graph's node for the same value.
        integers: each integer node of the graph -> the nodes of its scale and zero_point.
        """
        outputs: list[Noise] = []
        references: list[Any] = []
        noises = _Noises(values, integers)
        for inputs in self.batches:
            with torch.no_grad():
                references.append(Interpreter(self.module, noises.keep).run(*inputs))
                self._add(outputs, references[-1], Interpreter(module, noises.against).run(*inputs))
        self._outputs = references
        return _noisiest(outputs), noises.found

    @torch.no_grad()
    def local(
        self,
        module: fx.GraphModule,
        values: Mapping[fx.Node, fx.Node],
        integers: Mapping[fx.Node, tuple[fx.Node, fx.Node]],
    ) -> dict[fx.Node, Noise]:
        """The noise that each of the values has by its own rounding, on exact inputs."""
        noises = _Noises(values, integers, exact_after=True)
        for inputs in self.batches:
            Interpreter(self.module, noises.keep).run(*inputs)
            Interpreter(module, noises.against).run(*inputs)
        return noises.found

    def _add(self, outputs: list[Noise], reference: Any, value: Any) -> None:
        """Add the outputs of one batch that can be compared; shapes of others depend on values."""
        pairs = [(reference[i], value[i]) for i in self._measured]
        outputs += [Noise() for _ in pairs[len(outputs) :]]
        for noise, (r, v) in zip(outputs, pairs, strict=True):
            noise.add(r, v)


class _Noises:
    """The noise of values of one graph, against those of the float graph run before it.

    exact_after: values are replaced by the exact ones once they are compared.
    """

    def __init__(
        self,
        values: Mapping[fx.Node, fx.Node],
        integers: Mapping[fx.Node, tuple[fx.Node, fx.Node]],
        exact_after: bool = False,
    ) -> None:
        self.found = {node: Noise() for node in values if is_comparable(node)}
        self.sources = {copy: node for node, copy in values.items()}
        self.integers, self.exact_after = integers, exact_after
        self.kept: dict[fx.Node, Tensor] = {}

    def keep(self, node: fx.Node, value: Any, env: Any) -> Any:
        """Called with each value of the float graph."""
        if node in self.found and isinstance(value, Tensor) and value.is_floating_point():
            self.kept[node] = value
        return value

    def against(self, node: fx.Node, value: Any, env: Any) -> Any:
        """Called with each value of the other graph."""
        source = self.sources.get(node)
        if source is None or source not in self.kept:
            return value
        exact = self.kept.pop(source)
        if node in self.integers:
            value_as_float = ops.dequantize(value, *(env[a] for a in self.integers[node]))
            self.found[source].add(exact, value_as_float)
            return value
        self.found[source].add(exact, value)
        return exact if self.exact_after else value


def _noisiest(outputs: list[Noise]) -> Noise:
    # an output of zeros has no signal to compare noise with
    heard = [o for o in outputs if o.signal > 0] or outputs
    return max(heard, key=lambda o: o.ratio, default=Noise())


def decibels(value: float) -> str:
    """A number of dB as text."""
    return f"{value:.1f}" if math.isfinite(value) else ("exact" if value > 0 else "none")
