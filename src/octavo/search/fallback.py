"""Reach a goal: turn float the few sites that keep the model from it, the dearest noise first.

The goal is the output's SQNR, never below `Config.min_sqnr` (a collapsed model is not returned),
or the number that a user's own evaluation gives.
"""

import dataclasses
import warnings
from collections.abc import Callable, Sequence
from typing import Any

from torch import fx

from ..errors import CollapseWarning
from ..graph.names import module_path
from ..metrics import Step
from ..quantizer import Quantizer
from ..tune.steps import Converted, Evidence, convert_tuned
from .sensitivity import site_effects

Evaluate = Callable[[Callable[..., Any]], float]
RETURNS = 8  # of the sites turned float, so many are tried as int8 again


@dataclasses.dataclass(frozen=True)
class Goal:
    """When a quantized graph is good enough, and the reason of a site that is float for it."""

    met: Callable[[Converted], bool]
    reason: str


def convert_guarded(
    quantizer: Quantizer,
    evidence: Evidence,
    evaluate: Evaluate | None = None,
    max_drop: float = 0.0,
) -> Converted:
    """Convert and tune; where a goal is not met, turn float the fewest sites that meet it.

    Sites are ordered by the noise that each alone would bring to the output, per multiply-add;
    as few of the first are turned float as bisection finds to be enough, and of those as many
    become int8 again as can. Warns (CollapseWarning) if the SQNR was below `min_sqnr`.
    """
    result = convert_tuned(quantizer, evidence)
    before, steps = result.output.sqnr, result.steps
    for goal in _goals(quantizer, evaluate, max_drop):
        if goal.met(result):
            continue
        kept = {n: r for n, r in quantizer.float_reasons.items() if r != goal.reason}
        turned, result = _reach(quantizer, goal, kept, evidence)
        after = result.output.sqnr
        steps = (*steps, Step(f"{len(turned)} sites float", before, after, True))
        if before < quantizer.config.min_sqnr:
            _warn(quantizer, turned, before, after)
        before = after
    return dataclasses.replace(result, steps=steps)


def _goals(quantizer: Quantizer, evaluate: Evaluate | None, max_drop: float) -> list[Goal]:
    config = quantizer.config
    name = "target_sqnr" if config.target_sqnr > config.min_sqnr else "min_sqnr"
    least = getattr(config, name)
    reached = f"for the output's SQNR to reach {name}={least:g} dB"
    goals = [Goal(lambda result: result.output.sqnr >= least, reached)]
    if evaluate is not None:
        worst = _evaluated(quantizer, quantizer.module, evaluate) - max_drop
        goals.append(
            Goal(
                lambda result: _evaluated(quantizer, result.graph, evaluate) >= worst,
                f"for evaluate(model) to drop by no more than max_drop={max_drop:g}",
            )
        )
    return goals


def _evaluated(quantizer: Quantizer, graph: fx.GraphModule, evaluate: Evaluate) -> float:
    """What the user's function says of a graph, called like the model and run in OpenVINO."""
    from ..engines.openvino.engine import compile_graph

    assert quantizer.signature is not None
    return float(evaluate(compile_graph(graph, quantizer.signature)))


def _reach(
    quantizer: Quantizer, goal: Goal, kept: dict[str, str], evidence: Evidence
) -> tuple[list[str], Converted]:
    """The sites that must be float, beside those that are for other reasons, and the result."""

    def tried(sites: Sequence[str]) -> Converted:
        quantizer.set_float(kept | dict.fromkeys(sites, goal.reason))
        return convert_tuned(quantizer, evidence)

    order = _dearest_first(quantizer, evidence)
    low, high = 1, len(order)
    while low < high:
        middle = (low + high) // 2
        if goal.met(tried(order[:middle])):
            high = middle
        else:
            low = middle + 1
    turned = order[:high]
    for site in sorted(turned, key=lambda site: -_work(quantizer, site))[:RETURNS]:
        fewer = [s for s in turned if s != site]
        if fewer and goal.met(tried(fewer)):
            turned = fewer
    return turned, tried(turned)


def _dearest_first(quantizer: Quantizer, evidence: Evidence) -> list[str]:
    """int8 sites that compute, by the noise they bring to the output for the work they save."""
    effects = site_effects(quantizer, evidence.tuning)
    every = sum(_work(quantizer, site) for site in effects) / max(len(effects), 1)
    # a site without multiply-adds saves the conversions around it: a fraction of a common one
    return sorted(effects, key=lambda s: -effects[s] / (_work(quantizer, s) + every / 4 + 1))


def _work(quantizer: Quantizer, site: str) -> int:
    return sum(quantizer.work.get(n.name, 0) for n in quantizer.covered[site])


def _warn(quantizer: Quantizer, turned: Sequence[str], before: float, after: float) -> None:
    paths = [module_path(quantizer.covered[name][0]) or name for name in turned]
    warnings.warn(
        f"the quantized output had an SQNR of {before:.1f} dB on calibration data; with "
        f"{len(turned)} of its sites float it has {after:.1f} dB: {', '.join(paths)}. "
        "The report lists them; more or better calibration data may make this unnecessary",
        CollapseWarning,
        stacklevel=6,  # the call of quantize, past its no_grad
    )
