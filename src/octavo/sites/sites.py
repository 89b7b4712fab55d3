"""Sites: what each match reads as integers, and which values share a scale. Frozen once matched."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor, fx

from ..capture.float_graph import FloatGraph
from ..config import Config
from ..cpu import saturates_pairs
from ..errors import PatternError
from ..graph.names import describe, operator_name
from ..graph.notes import float_reason
from ..graph.qparams import REDUCED_WEIGHT, WEIGHT, QSpec
from ..site_config import SiteConfig
from .demand import Demand, find_demand
from .patterns import DEFAULT_PATTERNS, Handler, Pattern, find_matches
from .rules.base import Context, PassThrough, Rule, Weighted, is_rule
from .rules.kinds import Recurrent
from .selection import site_settings


@dataclass(frozen=True)
class Site:
    """The nodes that one match covers, and what becomes of them.

    number: for `Config.keep_float` and the report, in graph order.
    settings: those of `Config` for this site, all of them set.
    int8_inputs: what it reads as integers of a known range; empty for a site that stays float or
        is dynamic.
    fused_input: the one of these that an engine takes, unrounded, from a convolution's accumulator.
    fallback_reason: why it must stay float; an empty string for a site that need not.
    """

    number: int
    rule: Rule
    settings: SiteConfig
    int8_inputs: tuple[fx.Node, ...]
    fused_input: fx.Node | None
    fallback_reason: str

    @property
    def root(self) -> fx.Node:
        """The last node covered, by which a site is known."""
        return self.rule.root

    @property
    def moves_integers(self) -> bool:
        """Whether it only moves integers about, without rounding anything."""
        return self.rule.shares_qparams and bool(self.int8_inputs)

    @property
    def activations(self) -> str:
        """How its inputs are rounded: "static", "dynamic" or "float"."""
        if self.int8_inputs:
            return "static"
        is_dynamic = self.settings.activations == "dynamic" and not self.fallback_reason
        return "dynamic" if is_dynamic else "float"

    @property
    def int8_weights(self) -> dict[fx.Node, int]:
        """The weights that are stored as int8 -> the axis of their output channels."""
        alone = self.settings.activations == "float" and not self.fallback_reason
        return self.rule.weights() if alone or self.activations != "float" else {}

    @property
    def verdict(self) -> tuple[str, str]:
        """("int8", "") or ("float", the reason)."""
        if self.fallback_reason:
            return "float", self.fallback_reason
        if self.activations != "float":
            return "int8", ""
        stored = "; weights are int8" if self.int8_weights else ""
        if self.rule.float_reason:
            return "float", self.rule.float_reason + stored
        return "float", f"as set{stored}" if stored else self.rule.undemanded_reason


@dataclass(frozen=True, eq=False)
class Sites(Mapping[fx.Node, Site]):
    """The sites of a graph, by root, in graph order; made by `match`.

    patterns, config: what they were matched with.
    weight_spec: the integers that weights become.
    settings: root -> the settings of its site.
    reasons: root -> why the site must stay float.
    """

    graph: FloatGraph
    patterns: Mapping[Pattern, Handler]
    config: Config
    weight_spec: QSpec
    rules: Mapping[fx.Node, Rule]
    settings: Mapping[fx.Node, SiteConfig]
    reasons: Mapping[fx.Node, str]
    convolutional: frozenset[fx.Node]
    demand: Demand

    # ---- as a mapping

    def __getitem__(self, root: fx.Node) -> Site:
        return self._sites[root]

    def __iter__(self) -> Iterator[fx.Node]:
        return iter(self._sites)

    def __len__(self) -> int:
        return len(self._sites)

    __hash__ = object.__hash__

    @cached_property
    def _sites(self) -> dict[fx.Node, Site]:
        context, found = self.context, {}
        for number, (root, rule) in enumerate(self.rules.items()):
            inputs = self.demand.inputs.get(root, ())
            fused = rule.fused_input(context) if inputs else None
            reason = self.reasons.get(root, "")
            found[root] = Site(number, rule, self.settings[root], inputs, fused, reason)
        return found

    # ---- questions

    @property
    def context(self) -> Context:
        """What rules may query."""
        return Context(self.graph.module, self.rules, self.convolutional)

    @cached_property
    def roots(self) -> dict[fx.Node, fx.Node]:
        """Each covered node -> the root of its site."""
        return {n: root for root, rule in self.rules.items() for n in rule.nodes}

    @cached_property
    def observed(self) -> tuple[fx.Node, ...]:
        """The values whose ranges calibration must observe, in graph order."""
        asked = self.demand.hints | self.demand.specs.keys()
        return tuple(n for n in self.graph.graph.nodes if n in asked and not self._moved(n))

    def _moved(self, node: fx.Node) -> bool:
        """Whether a value has the integers of another, so that it needs no range of its own."""
        site = self.get(node)
        return site is not None and isinstance(site.rule, PassThrough) and bool(site.int8_inputs)

    @cached_property
    def groups(self) -> dict[fx.Node, tuple[fx.Node, ...]]:
        """Values that share qparams: the one that names the group -> those observed."""
        found: dict[fx.Node, tuple[fx.Node, ...]] = {}
        for node in self.observed:
            first = self.demand.group_of(node)
            found[first] = (*found.get(first, ()), node)
        return found

    def weighted(self) -> list[Weighted]:
        """The rules of the sites whose constant weight becomes int8, last first."""
        found = [site.rule for site in self.values() if site.int8_weights]
        return [rule for rule in reversed(found) if isinstance(rule, Weighted)]

    def observer_of(self, node: fx.Node) -> str:
        """The kind of observer for a value: that of the first site that computes with it."""
        return self._observers.get(self.demand.group_of(node), self.config.observer)

    @cached_property
    def _observers(self) -> dict[fx.Node, str]:
        return {
            self.demand.group_of(n): str(self.settings[root].observer)
            for root, inputs in self.demand.inputs.items()  # last first
            for n in inputs
            if not self.rules[root].shares_qparams
        }

    def verdict(self, node: fx.Node) -> tuple[str, str]:
        """("int8", "") or ("float", the reason), of a site or of a node outside of all sites."""
        if node in self:
            return self[node].verdict
        return "float", float_reason(node) or f"no rule for {operator_name(node)}"

    # ---- other sites

    def with_float(self, reasons: Mapping[fx.Node, str]) -> Sites:
        """The same sites, with these also in float, for these reasons."""
        return self._with(reasons, {})

    @cached_property
    def may_be_dynamic(self) -> tuple[fx.Node, ...]:
        """The sites whose activations may become dynamic: none of those that an entry names."""
        config = dataclasses.replace(self.config, activations="dynamic")
        settings, _ = site_settings(config, self.rules)
        named = (root for root, s in settings.items() if s.activations == "dynamic")
        return tuple(root for root in named if self[root].activations == "static")

    @cached_property
    def may_be_integer_layers(self) -> tuple[fx.Node, ...]:
        """The recurrent layers that may multiply integers: none of those that an entry names."""
        settings, _ = site_settings(self.config, self.rules, stored="static")
        layers = [root for root, rule in self.rules.items() if isinstance(rule, Recurrent)]
        return tuple(
            root
            for root in layers
            if settings[root].activations == "static"
            and self[root].activations == "float"
            and self.rules[root].quantized_inputs(self.context, False)
        )

    def with_activations(self, chosen: Mapping[fx.Node, str]) -> Sites:
        """The same sites, with "static" or "dynamic" activations in these."""
        return self._with({}, chosen)

    def _with(self, reasons: Mapping[fx.Node, str], chosen: Mapping[fx.Node, str]) -> Sites:
        reasons = {**self.reasons, **reasons}
        settings = dict(self.settings)
        for root, activations in chosen.items():
            settings[root] = dataclasses.replace(settings[root], activations=activations)
        demand = find_demand(self.context, _not_static(reasons, settings))
        return dataclasses.replace(self, settings=settings, reasons=reasons, demand=demand)

    def on(self, graph: FloatGraph, **changes: object) -> Sites:
        """The sites of another form of the graph; `changes` override settings of `config`.

        What `with_float` and `with_activations` have set is kept, by the names of the nodes.
        """
        found = match(graph, self.patterns, dataclasses.replace(self.config, **changes))  # type: ignore[arg-type]
        roots = {root.name: root for root in found.rules}
        reasons = {roots[r.name]: why for r, why in self.reasons.items() if r.name in roots}
        chosen = {
            roots[r.name]: str(s.activations) for r, s in self.settings.items() if r.name in roots
        }
        return found._with(reasons, chosen)


def match(
    graph: FloatGraph,
    patterns: Mapping[Pattern, Handler] = DEFAULT_PATTERNS,
    config: Config | None = None,
) -> Sites:
    """Find the sites of a graph: matches, why some stay float, and what is read as integers.

    Raises ConfigError for an entry of `Config.sites` or `Config.keep_float` that names no site.
    """
    config = config or Config()
    reduced = saturates_pairs() if config.reduce_range == "auto" else config.reduce_range
    modules = dict(graph.module.named_modules())
    matches = find_matches(graph.graph, modules, patterns)
    rules: dict[fx.Node, Rule] = {nodes[-1]: _rule(maker, nodes) for nodes, maker in matches}
    context = Context(graph.module, rules)
    reasons = {root: r for root, rule in rules.items() if (r := _unsupported(context, rule))}
    settings, chosen = site_settings(config, rules)
    reasons |= chosen
    convolutional = _convolutional(graph.graph.nodes, rules)
    context = dataclasses.replace(context, convolutional=convolutional)
    demand = find_demand(context, _not_static(reasons, settings))
    weight_spec = REDUCED_WEIGHT if reduced else WEIGHT
    return Sites(
        graph, patterns, config, weight_spec, rules, settings, reasons, convolutional, demand
    )


def _not_static(
    reasons: Mapping[fx.Node, str], settings: Mapping[fx.Node, SiteConfig]
) -> set[fx.Node]:
    """The sites that read nothing rounded to a known range, whatever their rules say."""
    return reasons.keys() | {root for root, s in settings.items() if s.activations != "static"}


def _rule(maker: Handler, nodes: Sequence[fx.Node]) -> Rule:
    if not is_rule(getattr(maker, "func", maker)):
        raise PatternError(
            f"the handler {maker} is not a Rule: derive it from octavo.Rule, or give a handler of "
            "torch.fx's original form to octavo.Quantizer(patterns=...)"
        )
    rule: Rule = maker(nodes)
    return rule


def _unsupported(context: Context, rule: Rule) -> str:
    """Why a site must stay float whatever reads it; an empty string for none."""
    values = [n.meta.get("val") for n in (rule.root, *rule.operator.all_input_nodes)]
    if any(isinstance(v, Tensor) and v.is_complex() for v in values):
        return "its numbers are complex"
    for n in rule.activations():
        if isinstance(n.meta.get("val"), bool | int | float | torch.SymInt | torch.SymFloat):
            return f"{describe(n)} is not a tensor"
    return rule.unsupported_reason(context)


def _convolutional(nodes: Iterable[fx.Node], rules: Mapping[fx.Node, Rule]) -> frozenset[fx.Node]:
    """The values that count as a convolution's output (see `Rule.convolutional`)."""
    found: set[fx.Node] = set()
    for node in nodes:
        rule = rules.get(node)
        if rule is None:
            continue
        inputs = [n for n in rule.operator.all_input_nodes if n.op != "get_attr"]
        passed = bool(inputs) and found.issuperset(inputs)
        if rule.convolutional or (rule.convolutional is None and passed):
            found.add(node)
    return frozenset(found)
