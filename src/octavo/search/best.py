"""Best: further settings, tried one after another, each on top of what was kept before it.

A setting is kept where it makes less noise at the output on samples that nothing was tuned on. They
are judged in groups of samples that belong together or follow each other, such as the frames of a
clip: what is kept gains by more than the spread over the groups explains. First come settings that
cost no time of a call: other observers, ranges refined to the noise at the output, fewer samples to
tune with. Then the operators whose rounding makes the most noise for each millisecond stay float,
as many as add no more than 1 % to the time of a call, measured in the engine.
"""

from __future__ import annotations

import dataclasses
import math
import statistics
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from typing import Any

from torch import fx

from ..calibrate.samples import Samples
from ..convert import Emission
from ..graph.names import module_path
from ..graph.tensors import tensor_bytes
from ..metrics import FloatReference, Step
from ..progress import tracked
from ..sites.sites import Sites
from ..tune.tune import Tuned
from .latency import Compile, Race, milliseconds_in_float
from .sensitivity import site_sensitivity

GROUPS = 32  # of samples to judge by
MEASURED = 32  # samples that tuning and the report measure on; to judge by there may be more
MOST_TIME = 1.01  # of the time of a call before some operators became float
MOST_BYTES = 1.1  # of the model's, for weights that stay float
MOST_SITES = 8  # tried in float
LEAST_NOISE = 0.02  # of all noise: sites that make less are not tried
IN_FLOAT = "less noise at next to no cost in time"


@dataclasses.dataclass(frozen=True)
class Recipe:
    """How a graph is converted and tuned, beyond what the settings say.

    observer: of all activations; "" for those of the settings. refined: whether ranges are refined
    (see `refine`). samples: the most to tune with; None for all.
    """

    observer: str = ""
    refined: bool = False
    samples: int | None = None


PLAIN = Recipe()
CHANGES: Mapping[str, Mapping[str, Any]] = {
    "percentile ranges": {"observer": "percentile"},
    "ranges that clip nothing": {"observer": "minmax"},
    "ranges refined to the noise at the output": {"refined": True},
    "tuning with 16 samples": {"samples": 16},
}
FLOATS = "in float"
HAS_ENGINE = find_spec("openvino") is not None


@dataclasses.dataclass(frozen=True)
class Found:
    """A recipe and what it gave: its noise-to-signal ratio on each group of samples."""

    recipe: Recipe
    tuned: Tuned
    noises: tuple[float, ...]


@dataclasses.dataclass(frozen=True)
class Search:
    """The search for better settings.

    attempt: converts and tunes with given sites, by a recipe. convert: only converts.
    in_time: whether there is time left for another trial.
    """

    attempt: Callable[[Sites, Recipe], Tuned]
    convert: Callable[[Sites], Emission]
    compile: Compile
    samples: Samples
    in_time: Callable[[], bool]

    def best(self, sites: Sites, show: bool) -> tuple[Recipe, Tuned]:
        """The best recipe and its result, whose steps say what was tried."""
        groups = [*self.samples.groups(GROUPS)]
        references = [FloatReference(sites.graph.module, group) for group in groups]

        def found(sites: Sites, recipe: Recipe) -> Found:
            tuned = self.attempt(sites, recipe)
            run = self._runner(tuned.emission.module)
            return Found(recipe, tuned, tuple(r.noise(run).ratio for r in references))

        best = found(sites, PLAIN)
        steps = [*best.tuned.steps]
        names = [*CHANGES, FLOATS]
        for name in tracked(names, "trying settings", len(names), show):
            if not self.in_time():
                now = best.tuned.output.sqnr
                steps.append(Step(f"{name}: no time left to try", now, now, False))
                continue
            if name == FLOATS:
                floats = self._worth_float(best.tuned.emission)
                trial = found(sites.with_float(floats), best.recipe) if floats else None
                paths = [module_path(sites.rules[s].operator) or s.name for s in floats]
                name = f"{name}: {', '.join(paths)}"
            else:
                trial = found(sites, dataclasses.replace(best.recipe, **CHANGES[name]))
            if trial is not None:
                steps.append(judged(name, best, trial))
                best = trial if steps[-1].kept else best
        return best.recipe, dataclasses.replace(best.tuned, steps=tuple(steps))

    def _runner(self, module: fx.GraphModule) -> Callable[..., Any]:
        """The graph in the engine, which is many times faster."""
        if not HAS_ENGINE:
            return module
        compiled = self.compile(module)
        return lambda *inputs: compiled.run(inputs)

    def _worth_float(self, emission: Emission) -> dict[fx.Node, str]:
        """Sites to keep float, most noise per millisecond first, while a call takes no longer."""
        if not HAS_ENGINE:
            return {}
        inputs = self.samples.subset(1).measuring[0]
        noise = site_sensitivity(emission, self.samples.subset(MOST_SITES).tuning)
        least = LEAST_NOISE * sum(noise.values())
        loud = [s for s in noise if noise[s] >= least]
        cost = milliseconds_in_float(emission, loud, self.convert, self.compile, inputs)
        order = sorted(loud, key=lambda s: -noise[s] / cost.get(s, 1.0))
        race = Race(emission.module, self.compile, inputs)
        most = MOST_BYTES * tensor_bytes(emission.module)
        floats: dict[fx.Node, str] = {}
        for site in order[:MOST_SITES]:
            more = floats | {site: IN_FLOAT}
            module = self.convert(emission.sites.with_float(more)).module
            small = tensor_bytes(module) <= most
            if small and self.in_time() and race.ratio(module) <= MOST_TIME:
                floats = more
        return floats


def judged(method: str, before: Found, after: Found) -> Step:
    """The trial, kept if its mean gain over the groups is more than the error of that mean."""
    gains = [
        10 * math.log10(b / a)
        for b, a in zip(before.noises, after.noises, strict=True)
        if 0 < a < math.inf and 0 < b < math.inf
    ]
    exact = not any(after.noises) and any(before.noises)
    gain = math.inf if exact else statistics.mean(gains) if gains else 0.0
    spread = statistics.stdev(gains) / math.sqrt(len(gains)) if len(gains) > 1 else 0.0
    sqnrs = before.tuned.output.sqnr, after.tuned.output.sqnr
    return Step(method, *sqnrs, gain > spread, gain, spread)
