"""Fallback: turn the most sensitive sites float, as few as it takes to reach a goal.

The goal is the output's SQNR, never below `Config.min_sqnr` (a collapsed model is not returned),
or the number that a user's own evaluation returns.
"""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import fx

from ..calibrate.samples import Samples
from ..config import Config
from ..errors import CollapseWarning
from ..graph.names import module_path
from ..metrics import Step
from ..sites.sites import Sites
from ..tune.tune import Tuned
from .sensitivity import site_sensitivity

Evaluate = Callable[[Callable[..., Any]], float]
Compile = Callable[[fx.GraphModule], Callable[..., Any]]
MAX_REVERTS = 8  # of the sites turned float, so many are tried as int8 again


@dataclasses.dataclass(frozen=True)
class Goal:
    """When a quantized graph is good enough, and the reason given for sites turned float for it."""

    met: Callable[[Tuned], bool]
    reason: str


def goals_of(
    config: Config,
    evaluate: Evaluate | None,
    max_drop: float,
    compile: Compile,
    float_module: fx.GraphModule,
) -> list[Goal]:
    """The goals that the settings and the user's evaluation set, in the order to reach them."""
    name = "target_sqnr" if config.target_sqnr > config.min_sqnr else "min_sqnr"
    least = getattr(config, name)
    reached = f"for the output's SQNR to reach {name}={least:g} dB"
    goals = [Goal(lambda result: result.output.sqnr >= least, reached)]
    if evaluate is not None:
        worst = float(evaluate(compile(float_module))) - max_drop
        goals.append(
            Goal(
                lambda result: float(evaluate(compile(result.emission.module))) >= worst,
                f"for evaluate(model) to drop by no more than max_drop={max_drop:g}",
            )
        )
    return goals


@dataclasses.dataclass(frozen=True)
class Fallback:
    """The search for sites to turn float.

    attempt: converts and tunes with given sites. macs: multiply-adds of each node.
    """

    attempt: Callable[[Sites], Tuned]
    samples: Samples
    macs: Mapping[fx.Node, int]

    def reach(self, sites: Sites, goals: Sequence[Goal]) -> Tuned:
        """Convert and tune; where a goal is not met, turn float the fewest sites that meet it.

        Sites are ordered by the noise that each alone would add to the output, per multiply-add.
        Bisection finds how many of the first must be float; of these, as many as possible are
        turned int8 again. Warns (CollapseWarning) if the SQNR was below `min_sqnr`.
        """
        result = self.attempt(sites)
        before, steps = result.output.sqnr, result.steps
        for goal in goals:
            if goal.met(result):
                continue
            turned, result = self._reach(result, goal)
            after = result.output.sqnr
            steps = (*steps, Step(f"{len(turned)} sites float", before, after, True))
            if before < sites.config.min_sqnr:
                _warn(sites, turned, before, after)
            before = after
        return dataclasses.replace(result, steps=steps)

    def _reach(self, result: Tuned, goal: Goal) -> tuple[list[fx.Node], Tuned]:
        """The sites that must be float, besides those float for other reasons, and the result."""
        sites = result.emission.sites

        def tried(turned: Sequence[fx.Node]) -> Tuned:
            return self.attempt(sites.with_float(dict.fromkeys(turned, goal.reason)))

        order = self._most_sensitive_first(result)
        low, high = 1, len(order)
        while low < high:
            middle = (low + high) // 2
            if goal.met(tried(order[:middle])):
                high = middle
            else:
                low = middle + 1
        turned = order[:high]
        for site in sorted(turned, key=lambda s: -self._macs(sites, s))[:MAX_REVERTS]:
            fewer = [s for s in turned if s is not site]
            if fewer and goal.met(tried(fewer)):
                turned = fewer
        return turned, tried(turned)

    def _most_sensitive_first(self, result: Tuned) -> list[fx.Node]:
        """int8 sites that compute, by the noise they add to the output per multiply-add."""
        sites = result.emission.sites
        noise = site_sensitivity(result.emission, self.samples.tuning)
        mean = sum(self._macs(sites, site) for site in noise) / max(len(noise), 1)
        # sites without multiply-adds save the conversions around them: a quarter of the mean
        return sorted(noise, key=lambda s: -noise[s] / (self._macs(sites, s) + mean / 4 + 1))

    def _macs(self, sites: Sites, site: fx.Node) -> int:
        return sum(self.macs.get(n, 0) for n in sites.rules[site].nodes)


def _warn(sites: Sites, turned: Sequence[fx.Node], before: float, after: float) -> None:
    paths = [module_path(sites.rules[site].operator) or site.name for site in turned]
    warnings.warn(
        f"the quantized output had an SQNR of {before:.1f} dB on calibration data; with "
        f"{len(turned)} of its sites float it has {after:.1f} dB: {', '.join(paths)}. "
        "The report lists them; more or better calibration data may make this unnecessary",
        CollapseWarning,
        stacklevel=6,  # the call of quantize, past its no_grad
    )
