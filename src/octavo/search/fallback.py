"""Fallback: turn the most sensitive sites float, as few as it takes to reach a goal.

The goal is the output's SQNR, never below `Config.min_sqnr` (a collapsed model is not returned),
or the number that a user's own evaluation returns.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import fx, nn

from ..calibrate.samples import Samples
from ..config import Config
from ..convert import Emission
from ..errors import CollapseWarning, ConfigError
from ..graph.names import module_path
from ..metrics import Step
from ..sites.sites import Sites
from ..tune.tune import Tuned
from .sensitivity import site_sensitivity

Evaluate = Callable[[nn.Module], Any]
Compile = Callable[[fx.GraphModule], Callable[..., Any]]
MAX_REVERTS = 8  # of the sites turned float, so many are tried as int8 again
PROBES = 2  # random directions for each sample, of the estimate that sites are ordered by
UNSURE = 3.0  # a site's noise may be so many times less than the estimate


@dataclasses.dataclass(frozen=True)
class Goal:
    """When a quantized graph is good enough, and the reason given for sites turned float for it.

    sqnr: the output's, in dB, that is good enough; None where something else decides.
    """

    met: Callable[[Tuned], bool]
    reason: str
    sqnr: float | None = None


class Candidate(nn.Module):
    """A compiled graph as `evaluate` gets it: a module in eval mode, on the CPU, as a user's is.

    Evaluations call `model.eval()`, or ask `next(model.parameters())` for the device: it has one
    parameter, which is empty, for these.
    """

    def __init__(self, compiled: Callable[..., Any]) -> None:
        super().__init__()
        self.compiled = compiled
        self.on_cpu = nn.Parameter(torch.empty(0), requires_grad=False)
        self.eval()

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Called like the user's model."""
        return self.compiled(*args, **kwargs)


def check_evaluation(evaluate: Evaluate | None, max_drop: float) -> None:
    """Raise ConfigError for an `evaluate` that is no function, or a `max_drop` below 0."""
    if evaluate is not None and not callable(evaluate):
        kind = type(evaluate).__name__
        raise ConfigError(
            f"evaluate is a {kind}: give a function that takes a model and returns a number"
        )
    if isinstance(max_drop, bool) or not isinstance(max_drop, int | float) or not max_drop >= 0:
        raise ConfigError(f"max_drop={max_drop!r}: a number, 0 or more, is needed")


def goals_of(
    config: Config,
    evaluate: Evaluate | None,
    max_drop: float,
    compile: Compile,
    float_module: fx.GraphModule,
) -> list[Goal]:
    """The goals that the settings and the user's evaluation set, in the order to reach them.

    Raises ConfigError where the evaluation returns anything but a number, which for the float model
    must be finite. A quantized model whose number is NaN does not reach the goal.
    """
    name = "target_sqnr" if config.target_sqnr > config.min_sqnr else "min_sqnr"
    least = getattr(config, name)
    reached = f"for the output's SQNR to reach {name}={least:g} dB"
    goals = [Goal(lambda result: least == 0 or result.output.sqnr >= least, reached, least)]
    check_evaluation(evaluate, max_drop)
    if evaluate is not None:
        worst = _evaluated(evaluate, compile(float_module)) - max_drop
        if not math.isfinite(worst):
            raise ConfigError(
                "evaluate must return one number, higher is better; it returned "
                f"{worst + max_drop} for the float model"
            )
        goals.append(
            Goal(
                lambda result: _evaluated(evaluate, compile(result.emission.module)) >= worst,
                f"for evaluate(model) to drop by no more than max_drop={max_drop:g}",
            )
        )
    return goals


def _evaluated(evaluate: Evaluate, compiled: Callable[..., Any]) -> float:
    """What a user's evaluation returns, one number of Python's, numpy's or in a tensor."""
    value = evaluate(Candidate(compiled))
    if isinstance(value, torch.Tensor | np.ndarray | np.generic) and math.prod(value.shape) == 1:
        value = value.item()
    if not isinstance(value, int | float):
        raise ConfigError(
            f"evaluate must return one number, higher is better; it returned {repr(value)[:200]}"
        )
    return float(value)


@dataclasses.dataclass(frozen=True)
class Fallback:
    """The search for sites to turn float.

    attempt: converts and tunes with given sites. macs: multiply-adds of each node.
    untuned: the output's noise over the signal with given sites and nothing tuned, which is
        measured several times as fast.
    """

    attempt: Callable[[Sites], Tuned]
    samples: Samples
    macs: Mapping[fx.Node, int]
    untuned: Callable[[Sites], float] | None = None

    def reach(self, sites: Sites, goals: Sequence[Goal], first: Tuned | None = None) -> Tuned:
        """Convert and tune; where a goal is not met, turn float the fewest sites that meet it.

        Sites are ordered by the noise that each alone would add to the output, per multiply-add.
        How many of the first must be float is searched from the number that these estimates
        predict, first without tuning; of these, as many as possible are turned int8 again.
        Warns (CollapseWarning) if the SQNR was below `min_sqnr`.

        first: the result with these sites, if it is known already.
        """
        result = first or self.attempt(sites)
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

        def with_float(turned: Sequence[fx.Node]) -> Sites:
            return sites.with_float(dict.fromkeys(turned, goal.reason))

        @functools.lru_cache(maxsize=4)  # a result holds the weights
        def tried(turned: tuple[fx.Node, ...]) -> Tuned:
            return self.attempt(with_float(turned))

        noise = site_sensitivity(result.emission, self.samples.tuning, PROBES)
        order = most_sensitive_first(result.emission, noise, self.macs)
        estimate = Estimate.of(result, goal, noise)
        guess = estimate.count(order) if estimate else None
        if estimate and self.untuned:
            tuned_share = estimate.total / max(self.untuned(sites), 1e-30)
            allowed, untuned = estimate.allowed / tuned_share, self.untuned
            guess = fewest(lambda n: untuned(with_float(order[:n])) <= allowed, len(order), guess)
        count = fewest(lambda n: goal.met(tried(tuple(order[:n]))), len(order), guess)
        turned = tuple(order[:count])
        best = tried(turned)
        back = [s for s in turned if not estimate or estimate.may_return(s, best)]
        for site in sorted(back, key=lambda s: -_macs(sites, s, self.macs))[:MAX_REVERTS]:
            fewer = tuple(s for s in turned if s is not site)
            if fewer and goal.met(candidate := tried(fewer)):
                turned, best = fewer, candidate
        return list(turned), best


@dataclasses.dataclass(frozen=True)
class Estimate:
    """The noise at the output, in shares of the signal: of each site, of all, and allowed."""

    noise: Mapping[fx.Node, float]
    total: float
    allowed: float

    @classmethod
    def of(cls, result: Tuned, goal: Goal, noise: Mapping[fx.Node, float]) -> Estimate | None:
        """For a goal in dB, else None. The sites' sum is set to the noise that was measured."""
        estimated = sum(noise.values())
        total = result.output.ratio
        if goal.sqnr is None or not math.isfinite(total) or estimated <= 0:
            return None
        scaled = {site: share * total / estimated for site, share in noise.items()}
        return cls(scaled, total, 10 ** (-goal.sqnr / 10))

    def count(self, order: Sequence[fx.Node]) -> int:
        """How many of the first must be float."""
        left = self.total
        for count, site in enumerate(order):
            if left <= self.allowed:
                return count
            left -= self.noise[site]
        return len(order)

    def may_return(self, site: fx.Node, result: Tuned) -> bool:
        """Whether there may be room for a site's noise, beside what the result has."""
        return self.noise[site] <= UNSURE * (self.allowed - result.output.ratio)


def fewest(enough: Callable[[int], bool], most: int, guess: int | None = None) -> int:
    """The smallest count from 1 to `most` that is enough; `most` itself is not asked.

    From the guess in steps that double, until one count is known to be enough and one is not; then,
    or without a guess, by bisection.
    """
    low, high, step = 1, most, 1
    while low < high:
        asked = (low + high) // 2
        if guess is not None and (low == 1 or high == most):
            asked = min(max(guess, low), high - 1)
        if enough(asked):
            high, ahead = asked, asked - step
        else:
            low, ahead = asked + 1, asked + step
        guess, step = None if guess is None else ahead, 2 * step
    return high


def most_sensitive_first(
    emission: Emission, noise: Mapping[fx.Node, float], macs: Mapping[fx.Node, int]
) -> list[fx.Node]:
    """int8 sites that compute, by the noise they add to the output per multiply-add."""
    work = {site: _macs(emission.sites, site, macs) for site in noise}
    mean = sum(work.values()) / max(len(work), 1)
    # sites without multiply-adds save the conversions around them: a quarter of the mean
    return sorted(noise, key=lambda s: -noise[s] / (work[s] + mean / 4 + 1))


def _macs(sites: Sites, site: fx.Node, macs: Mapping[fx.Node, int]) -> int:
    return sum(macs.get(n, 0) for n in sites.rules[site].nodes)


def _warn(sites: Sites, turned: Sequence[fx.Node], before: float, after: float) -> None:
    paths = [module_path(sites.rules[site].operator) or site.name for site in turned]
    warnings.warn(
        f"the quantized output had an SQNR of {before:.1f} dB on calibration data; with "
        f"{len(turned)} of its sites float it has {after:.1f} dB: {', '.join(paths)}. "
        "The report lists them; more or better calibration data may make this unnecessary",
        CollapseWarning,
        stacklevel=6,  # the call of quantize, past its no_grad
    )
