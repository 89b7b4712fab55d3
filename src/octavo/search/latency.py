"""Choose for speed: sites that are slower as int8 in the engine stay float.

Measured on this machine. The engine's own operator times select the sites worth trying in float;
then whole models are timed against each other, since an int8 operator costs as much through the
conversions around it as by itself.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cached_property, partial
from typing import Any

from torch import Tensor, fx

from ..convert import Emission
from ..engines.base import EngineModel
from ..graph.names import full_name, operator_name
from ..graph.tensors import attribute
from ..graph.verify import graph_text
from ..sites.rules.base import Weighted
from ..sites.sites import Sites

Call = Callable[[], Any]
Compile = Callable[[fx.GraphModule], EngineModel]
ROUNDS, SECONDS = 6, 0.8  # of timing: at least so many, and for so long
FEW_ROUNDS, FEW_SECONDS, SLOWER = 3, 0.2, 1.12  # enough to tell a ratio beyond this
PROFILED_CALLS = 20
REPEATS = 2  # of compiling for a comparison
WORTH_IT = 0.98  # largest share of the time left: a smaller gain is noise


def choose_for_latency(
    emission: Emission,
    convert: Callable[[Sites], Emission],
    compile: Compile,
    inputs: Sequence[Tensor],
) -> Sites:
    """The sites, with those in float that make the model slower in int8.

    Sites of the same operator and shapes are tried together, and only if the engine's times allow
    a gain: see `_candidates`. inputs: flat inputs of the call that is timed.
    """
    model = compile(emission.module)
    plain = compile(emission.sites.graph.module)
    candidates = _candidates(emission, Profile(model, inputs), Profile(plain, inputs))
    fastest, sites = partial(model.run, inputs), emission.sites
    for label, roots in candidates.items():
        reason = f"the model runs faster on this machine with {label} in float"
        other = sites.with_float(dict.fromkeys(roots, reason))
        candidate = partial(compile(convert(other).module).run, inputs)
        if time_ratio(candidate, fastest) < WORTH_IT:
            fastest, sites = candidate, other
    return sites


def milliseconds_in_float(
    emission: Emission,
    roots: Iterable[fx.Node],
    convert: Callable[[Sites], Emission],
    compile: Compile,
    inputs: Sequence[Tensor],
) -> dict[fx.Node, float]:
    """How much longer a call takes with each of the sites in float, conversions included.

    By the engine's own times of all operators; at least a thousandth of a call. Empty if it has
    none.
    """
    base = Profile(compile(emission.module), inputs)
    if base.operators is None:
        return {}
    found = {}
    for root in roots:
        alone = convert(emission.sites.with_float({root: "to be measured"}))
        longer = Profile(compile(alone.module), inputs).total - base.total
        found[root] = max(longer, base.total / 1000)
    return found


class Profile:
    """The time of each operator in one call, as measured by the engine.

    Without a profile (the engine runs only some of the model), all operators count as inf.
    """

    def __init__(self, model: EngineModel, inputs: Sequence[Tensor]) -> None:
        self.operators = model.profile(inputs, PROFILED_CALLS)

    def of(self, names: Iterable[str], without: Iterable[str] = ()) -> float:
        """Milliseconds of the operators that compute any of `names` and none of `without`."""
        if self.operators is None:
            return math.inf
        asked, others = set(names), set(without)
        return sum(
            o.milliseconds
            for o in self.operators
            if asked.intersection(o.nodes) and not others.intersection(o.nodes)
        )

    @property
    def total(self) -> float:
        """Milliseconds of all operators."""
        return sum(o.milliseconds for o in self.operators or ())


def _candidates(emission: Emission, int8: Profile, plain: Profile) -> dict[str, list[fx.Node]]:
    """What to try in float, by possible gain, largest first: label -> sites.

    The possible gain of an operator without weights is its time and that of quantizing its inputs,
    unless fused into another layer; of a convolution or linear layer, only the time beyond that in
    float. Shapes with too little gain are tried together with others of their operator.
    """
    sites = emission.sites
    least = (1 - WORTH_IT) * int8.total
    layers = {n for rule in sites.weighted() for n in _emitted(emission, rule.root)}
    gains: dict[str, float] = {}
    found: dict[str, list[fx.Node]] = {}
    for (kind, *_), roots in _by_likeness(sites).items():
        own = {n for root in roots for n in _emitted(emission, root)}
        read = {n for root in roots for n in _quantized(emission, root)}
        gain = int8.of(own | read, without=layers - own)
        if isinstance(sites.rules[roots[0]], Weighted):
            gain -= plain.of(full_name(n) for root in roots for n in sites.rules[root].nodes)
        if gain > 0:
            label = f"{kind} {_shape_text(roots[0])}" if gain > least else kind
            gains[label] = gains.get(label, 0) + gain
            found.setdefault(label, []).extend(roots)
    order = sorted(found, key=lambda label: -gains[label])
    return {label: found[label] for label in order if gains[label] > least}


def _by_likeness(sites: Sites) -> dict[tuple[str, ...], list[fx.Node]]:
    """The int8 sites that compute, by operator, shapes and settings."""
    alike: dict[tuple[str, ...], list[fx.Node]] = {}
    for root, site in reversed([*sites.items()]):
        rule = site.rule
        if site.activations != "float" and not rule.passthrough:
            shapes = [_shape(sites, n) for n in rule.operator.all_input_nodes]
            settings = fx.map_arg(rule.operator.args, lambda n: None)
            key = (operator_name(rule.operator), str(shapes), str(settings))
            alike.setdefault(key, []).append(root)
    return alike


def _shape(sites: Sites, node: fx.Node) -> str:
    is_weight = node.op == "get_attr"
    value = attribute(sites.graph.module, node.target) if is_weight else node.meta.get("val")
    return str(tuple(value.shape)) if isinstance(value, Tensor) else ""


def _shape_text(node: fx.Node) -> str:
    """The shape of a site's output, free sizes as "*": "*x64x56x56"."""
    value = node.meta.get("val")
    sizes = value.shape if isinstance(value, Tensor) else ()
    return "x".join(str(d) if type(d) is int else "*" for d in sizes)


def _emitted(emission: Emission, root: fx.Node) -> Iterator[str]:
    """The engine's names for the operators of a site."""
    nodes = emission.sites.rules[root].nodes
    yield from (full_name(emission.copies[n]) for n in nodes if n in emission.copies)


def _quantized(emission: Emission, root: fx.Node) -> Iterator[str]:
    """The engine's names for the quantization of a site's inputs."""
    quantized = emission.quantized
    reads = emission.sites[root].int8_inputs
    yield from (full_name(quantized[n]) for n in reads if n in quantized)


def time_ratio(a: Call, b: Call) -> float:
    """The least time of `a` over that of `b`, called in turns."""
    least = [math.inf] * 2
    rounds, start = 0, time.perf_counter()
    while True:
        rounds += 1
        for i, call in enumerate((a, b)):
            call()  # warms the caches, which hold the other's data
            before = time.perf_counter()
            call()
            least[i] = min(least[i], time.perf_counter() - before)
        ratio, seconds = least[0] / least[1], time.perf_counter() - start
        enough = (FEW_ROUNDS, FEW_SECONDS) if ratio > SLOWER else (ROUNDS, SECONDS)
        if rounds >= enough[0] and seconds >= enough[1]:
            return ratio


def seconds_in_turns(calls: Sequence[Call], rounds: int) -> list[list[float]]:
    """The time of every call, each in every round, after a call of its own that is not timed."""
    found: list[list[float]] = [[] for _ in calls]
    for _ in range(rounds):
        for call, taken in zip(calls, found, strict=True):
            call()  # the caches, and threads that wait for more work, are the last one's
            start = time.perf_counter()
            call()
            taken.append(time.perf_counter() - start)
    return found


def median_milliseconds(calls: Sequence[Call], rounds: int) -> list[float]:
    """The median time of each call, called in turns."""
    return [1e3 * statistics.median(seconds) for seconds in seconds_in_turns(calls, rounds)]


_RATIOS: dict[tuple[str, ...], float] = {}  # measured in this process: the same choice each time


class Race:
    """Graphs beside one, each compiled twice unless much slower: where memory lies matters."""

    def __init__(self, base: fx.GraphModule, compile: Compile, inputs: Sequence[Tensor]) -> None:
        self.base, self.compile, self.inputs = base, compile, inputs

    @cached_property
    def _runs_of_base(self) -> list[Call]:
        return [self._run(self.base) for _ in range(REPEATS)]

    def _run(self, module: fx.GraphModule) -> Call:
        return partial(self.compile(module).run, self.inputs)

    def ratio(self, module: fx.GraphModule) -> float:
        """The time of `module` over that of the first, measured once for graphs of their shapes."""
        shapes = [str(tuple(t.shape)) for t in self.inputs]
        key = (graph_text(module.graph), graph_text(self.base.graph), *shapes)
        if key not in _RATIOS:
            ratios: list[float] = []
            for base in self._runs_of_base:
                ratios.append(time_ratio(self._run(module), base))
                if ratios[-1] > SLOWER:
                    break
            _RATIOS[key] = statistics.mean(ratios)
        return _RATIOS[key]
