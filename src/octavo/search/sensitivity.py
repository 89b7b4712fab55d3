"""What each int8 site costs: the noise that its own rounding alone would bring to the output.

To first order, an error e of a value reaches the output as J e, J being the Jacobian. For random
r with independent elements of variance 1, the mean of (r . J e)**2 is its energy, and the
gradient of r . output, J^T r, is that of one backward pass for all values at once (the estimator
of a trace of Hutchinson 1990; Hessian-aware methods such as HAWQ, arXiv 1905.03696, use it too).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, fx
from torch.utils._pytree import tree_leaves

from ..graph import ops
from ..graph.qparams import QParams, weight_qparams
from ..graph.tensors import attribute

if TYPE_CHECKING:
    from ..quantizer import Quantizer
    from ..sites.rules import Weighted

PROBES = 8  # random r: the estimate is within a few tens of percent


def site_effects(quantizer: Quantizer, batches: Sequence[Sequence[Tensor]]) -> dict[str, float]:
    """Noise energy over signal energy at the output, of each int8 site by itself.

    Sites that only move integers are left out; the noise of a value that several sites read is
    shared among them. To be called after `quantizer.quantize()`. batches: flat inputs, a few
    samples; memory is that of a training step on one batch.
    """
    sites = _origins_of_sites(quantizer)
    of_values, of_weights, signal = rounding_noise(quantizer, batches)
    readers = Counter(o for origins in sites.values() for o in origins)
    signal = max(signal, 1e-30)
    return {
        site: (sum(of_values[o] / readers[o] for o in origins) + of_weights[site]) / signal
        for site, origins in sites.items()
    }


def rounding_noise(
    quantizer: Quantizer, batches: Sequence[Sequence[Tensor]]
) -> tuple[Counter[str], Counter[str], float]:
    """Energy at the output: of each value's noise, of that of each site's weight, of the signal."""
    of_values: Counter[str] = Counter()
    of_weights: Counter[str] = Counter()
    signal = 0.0
    rounded = {o for origins in _origins_of_sites(quantizer).values() for o in origins}
    for inputs in batches:
        run = _Run(quantizer, rounded, [_differentiable(x) for x in inputs])
        for _ in range(PROBES):
            signal += sum(float(y.detach().square().sum()) for y in run.outputs)
            run.probe(of_values, of_weights)
    return of_values, of_weights, signal


def _origins_of_sites(quantizer: Quantizer) -> dict[str, set[str]]:
    """Each int8 site that computes -> the values that are rounded for it."""
    return {
        site: {o for n in reads for o in _origins(quantizer, n)}
        for site, reads in quantizer.reads.items()
        if not _passes(quantizer, site)
    }


def _origins(quantizer: Quantizer, node: fx.Node) -> set[str]:
    """The values that were rounded for one to be integers: itself, or what it was moved from."""
    if not _passes(quantizer, node.name):
        return {node.name}
    return {o for n in quantizer.reads[node.name] for o in _origins(quantizer, n)}


def _passes(quantizer: Quantizer, site: str) -> bool:
    """Whether it moves integers about, without rounding."""
    root, _ = quantizer.matches.get(site, (None, None))
    rule = quantizer.rule_of(root) if root is not None else None
    return site in quantizer.reads and rule is not None and rule.shares_range


def _differentiable(x: Tensor) -> Tensor:
    return x.clone().requires_grad_() if x.is_floating_point() else x


class _Run(fx.Interpreter):
    """The float graph run on one batch, ready for gradients, with the error of each rounding."""

    @torch.enable_grad()
    def __init__(self, quantizer: Quantizer, rounded: set[str], inputs: Sequence[Tensor]) -> None:
        super().__init__(quantizer.module)
        self.extra_traceback = False
        self.quantizer, self.rounded = quantizer, rounded
        self.weighted = {rule.operator: rule for rule in quantizer.weighted_sites()}
        self.values: dict[str, tuple[Tensor, Tensor]] = {}  # value, error: of rounding it
        self.products: dict[str, tuple[Tensor, Tensor]] = {}  # of rounding a site's weight
        outputs = tree_leaves(self.run(*inputs))
        self.outputs = [y for y in outputs if isinstance(y, Tensor) and y.requires_grad]

    def run_node(self, n: fx.Node) -> Any:
        value = super().run_node(n)
        if not isinstance(value, Tensor) or not value.is_floating_point():
            return value
        rule = self.weighted.get(n)
        if rule is None and n.name not in self.rounded:
            return value
        value = value if value.requires_grad else value.detach().requires_grad_()
        with torch.no_grad():
            if n.name in self.rounded:
                error = _rounded(value, self.quantizer.quant_of(n).qparams()) - value
                self.values[n.name] = (value, error)
            if rule is not None:
                error = self._with_int8_weight(n, rule) - value
                self.products[rule.root.name] = (value, error)
        return value

    def _with_int8_weight(self, n: fx.Node, rule: Weighted) -> Tensor:
        ((weight_node, axis),) = rule.weights().items()
        weight = attribute(self.module, weight_node.target).detach()
        qparams = weight_qparams(weight, axis, self.quantizer.weight_spec)
        args, kwargs = self.fetch_args_kwargs_from_env(n)
        args = (args[0], _rounded(weight, qparams), *args[2:])
        return n.target(*args, **kwargs)  # type: ignore[operator]

    def probe(self, of_values: Counter[str], of_weights: Counter[str]) -> None:
        """Add an estimate of the energy that each error has at the outputs."""
        kept = [(of_values, self.values), (of_weights, self.products)]
        tensors = [value for _, pairs in kept for value, _ in pairs.values()]
        directions = [torch.randn_like(y) for y in self.outputs]
        gradients = iter(
            torch.autograd.grad(
                self.outputs, tensors, directions, retain_graph=True, allow_unused=True
            )
        )
        for total, pairs in kept:
            for name, (_, error) in pairs.items():
                gradient = next(gradients)
                if gradient is not None:
                    by_sample = (gradient * error).reshape(len(error), -1).sum(1)
                    total[name] += float(by_sample.square().sum())  # type: ignore[assignment]


def _rounded(x: Tensor, p: QParams) -> Tensor:
    q = ops.quantize(x, p.scale, p.zero_point, p.spec.qmin, p.spec.qmax, p.spec.dtype, p.axis)
    return ops.dequantize(q, p.scale, p.zero_point, p.axis)
