"""Sensitivity: the noise that the rounding of each int8 site alone would add to the output.

To first order, an error e of a value reaches the output as J e, J being the Jacobian. For random
r with independent elements of variance 1, the mean of (r . J e)**2 is its energy there. One
backward pass yields the gradient of r . output, J^T r, for all values at once (the trace estimator
of Hutchinson 1990; Hessian-aware methods such as HAWQ, arXiv 1905.03696, use it too).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, fx
from torch.utils._pytree import tree_leaves

from ..convert import Emission
from ..graph import ops
from ..graph.interpreter import Interpreter
from ..graph.qparams import QParams, weight_qparams
from ..graph.tensors import constant
from ..sites.sites import Site

PROBES = 8  # random r: the estimate is within a few tens of percent


def site_sensitivity(
    emission: Emission, batches: Sequence[Sequence[Tensor]], probes: int = PROBES
) -> dict[fx.Node, float]:
    """Noise energy over signal energy at the output, of each int8 site by itself.

    Sites that only move integers are left out; the noise of a value that several sites read is
    shared among them. batches: flat inputs, a few samples; memory is that of a training step on
    one batch.
    """
    sources = _rounded_for_sites(emission)
    of_values, of_weights, signal = rounding_noise(emission, batches, probes)
    readers = Counter(value for values in sources.values() for value in values)
    signal = max(signal, 1e-30)
    return {
        site: (sum(of_values[v] / readers[v] for v in values) + of_weights[site]) / signal
        for site, values in sources.items()
    }


def rounding_noise(
    emission: Emission, batches: Sequence[Sequence[Tensor]], probes: int = PROBES
) -> tuple[Counter[fx.Node], Counter[fx.Node], float]:
    """Energy at the output: of each value's noise, of each site's weight noise, of the signal."""
    of_values: Counter[fx.Node] = Counter()
    of_weights: Counter[fx.Node] = Counter()
    signal = 0.0
    values = rounded_values(emission)
    random = torch.Generator().manual_seed(0)  # the same each time, and the user's own untouched
    for inputs in batches:
        run = Run(emission, values, inputs)
        for _ in range(probes):
            signal += sum(float(y.detach().square().sum()) for y in run.outputs)
            run.probe(of_values, of_weights, random)
    return of_values, of_weights, signal


def rounded_values(emission: Emission) -> set[fx.Node]:
    """The values that are rounded to ranges known from calibration."""
    return {v for values in _rounded_for_sites(emission).values() for v in values}


def _rounded_for_sites(emission: Emission) -> dict[fx.Node, set[fx.Node]]:
    """Each site that rounds or has int8 weights -> the values rounded for it to a known range."""
    return {
        root: {v for n in site.int8_inputs for v in _rounded_for_value(emission, n)}
        for root, site in emission.sites.items()
        if (site.verdict[0] == "int8" or site.int8_weights) and not site.moves_integers
    }


def _rounded_for_value(emission: Emission, node: fx.Node) -> set[fx.Node]:
    """The values that are rounded to make `node` integers: itself, or what it was moved from."""
    site = emission.sites.get(node)
    if site is None or not site.moves_integers:
        return {node}
    return {v for n in site.int8_inputs for v in _rounded_for_value(emission, n)}


def _differentiable(x: Tensor) -> Tensor:
    return x.clone().requires_grad_() if x.is_floating_point() else x


class Run:
    """The float graph run on one batch, ready for gradients, with the error of each rounding.

    asked: whose errors are found. weights: whether those of weights are, too.

    values: each rounded value, and the error of rounding it.
    products: the output of each layer with an int8 weight, and the error of rounding the weight
        (and, of a dynamic site, its inputs).
    """

    def __init__(
        self,
        emission: Emission,
        asked: set[fx.Node],
        inputs: Sequence[Tensor],
        weights: bool = True,
    ) -> None:
        self.emission, self.asked = emission, asked
        stored = [
            s
            for s in emission.sites.values()
            if weights and s.int8_weights and s.root in emission.values
        ]
        self.weighted = {s.rule.operator: s for s in stored}
        self.values: dict[fx.Node, tuple[Tensor, Tensor]] = {}
        self.products: dict[fx.Node, tuple[Tensor, Tensor]] = {}
        with torch.enable_grad():
            ready = [_differentiable(x) for x in inputs]
            outputs = Interpreter(emission.sites.graph.module, self.see).run(*ready)
        leaves = tree_leaves(outputs)
        self.outputs = [y for y in leaves if isinstance(y, Tensor) and y.requires_grad]

    def see(self, n: fx.Node, value: Any, env: Mapping[fx.Node, Any]) -> Any:
        """Record the rounding error of a value, and make the value require a gradient.

        Of a recurrent layer, the error of its outputs.
        """
        if isinstance(value, tuple) and n in self.weighted:
            return (self.see(n, value[0], env), *value[1:])
        if not isinstance(value, Tensor) or not value.is_floating_point():
            return value
        site = self.weighted.get(n)
        if site is None and n not in self.asked:
            return value
        value = value if value.requires_grad else value.detach().requires_grad_()
        with torch.no_grad():
            if n in self.asked:
                error = rounded(value, self.emission.qparams[n]) - value
                self.values[n] = (value, error)
            if site is not None:
                error = self._rounded_output(n, site, env) - value
                self.products[site.root] = (value, error)
        return value

    def _rounded_output(self, n: fx.Node, site: Site, env: Mapping[fx.Node, Any]) -> Tensor:
        """The output of a layer on its rounded weights and, if it is dynamic, inputs."""
        sites, values = self.emission.sites, dict(env)
        for node, axis in site.int8_weights.items():
            weight, per_channel = constant(sites.graph.module, node), site.settings.per_channel
            qparams = weight_qparams(weight, axis, sites.weight_spec, bool(per_channel))
            values[node] = rounded(weight, qparams)
        for x in site.rule.activations() if site.activations == "dynamic" else ():
            size = site.settings.group_size or env[x].shape[-1]
            values[x] = ops.fake_quantize_groups(env[x], size)
        args, kwargs = fx.map_arg((n.args, n.kwargs), values.__getitem__)
        output: Any = n.target(*args, **kwargs)  # type: ignore[operator]
        return output[0] if isinstance(output, tuple) else output

    def probe(
        self, of_values: Counter[fx.Node], of_weights: Counter[fx.Node], random: torch.Generator
    ) -> None:
        """Add an estimate of the energy that each error has at the outputs."""
        kept = [(of_values, self.values), (of_weights, self.products)]
        gradients = iter(
            self.gradients([value for _, pairs in kept for value, _ in pairs.values()], random)
        )
        for total, pairs in kept:
            for node, (_, error) in pairs.items():
                gradient = next(gradients)
                if gradient is not None:
                    by_sample = (gradient * error).reshape(len(error), -1).sum(1)
                    total[node] += float(by_sample.square().sum())  # type: ignore[assignment]

    def gradients(
        self, tensors: Sequence[Tensor], random: torch.Generator
    ) -> Sequence[Tensor | None]:
        """Of r . output with respect to each of the tensors, for a random r."""
        if not tensors or not self.outputs:
            return [None] * len(tensors)
        directions = [torch.randn(y.shape, generator=random).to(y) for y in self.outputs]
        return torch.autograd.grad(
            self.outputs, tensors, directions, retain_graph=True, allow_unused=True
        )


def rounded(x: Tensor, p: QParams) -> Tensor:
    """`x` as its integers say it."""
    q = ops.quantize(x, p.scale, p.zero_point, p.spec.qmin, p.spec.qmax, p.spec.dtype, p.axis)
    return ops.dequantize(q, p.scale, p.zero_point, p.axis)
