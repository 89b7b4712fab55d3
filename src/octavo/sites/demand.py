"""Demand: which values are read as integers, of which kind, and which of them share a scale."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import cached_property

from torch import fx

from ..graph.operators import is_operator
from ..graph.qparams import ACTIVATION, QSpec
from .rules.base import Context

CLIPS = ("relu", "hardtanh", "clamp", "clamp_min")


@dataclass(frozen=True)
class Demand:
    """What the sites of a graph read as integers.

    specs: each value read as integers -> the integers that one of its consumers needs.
    inputs: each site that reads integers -> these inputs, last site first.
    parents: union-find over values that share scale and zero_point; see `group_of`.
    may_be_signed: values that only matrix products read, which take int8 as well as uint8:
        OpenVINO adds to and convolves int8 activations less reliably.
    hints: convolution outputs that only float operators read, before integers again, and those
        before an activation of the same site, unless it clips: engines whose kernels return
        integers only may round them.
    """

    specs: Mapping[fx.Node, QSpec]
    inputs: Mapping[fx.Node, tuple[fx.Node, ...]]
    parents: Mapping[fx.Node, fx.Node]
    may_be_signed: frozenset[fx.Node]
    hints: frozenset[fx.Node]

    def group_of(self, node: fx.Node) -> fx.Node:
        """The value that names the group of values that share scale and zero_point with `node`."""
        return _root(self.parents, node)

    def spec_of(self, node: fx.Node) -> QSpec:
        """The integers of a value: symmetric if anything that shares its scale must be."""
        return self._symmetric.get(self.group_of(node), ACTIVATION)

    @cached_property
    def _symmetric(self) -> dict[fx.Node, QSpec]:
        return {self.group_of(n): s for n, s in self.specs.items() if s.symmetric}


def find_demand(context: Context, without: Collection[fx.Node]) -> Demand:
    """Walk backwards: each site demands integers, by the demand for its output.

    without: sites that demand none.
    """
    specs: dict[fx.Node, QSpec] = {}
    inputs: dict[fx.Node, tuple[fx.Node, ...]] = {}
    parents: dict[fx.Node, fx.Node] = {}
    unsigned: set[fx.Node] = set()
    for node in reversed(context.module.graph.nodes):
        rule = context.rule_of(node)
        if rule is None or node in without:
            continue
        reads = tuple(rule.quantized_inputs(context, node in specs))
        shares = rule.shares_qparams and bool(reads)
        spec = specs[node] if shares else rule.input_spec
        if reads:
            inputs[node] = reads
        if node in unsigned if shares else not rule.signed_input:
            unsigned.update(reads)
        for n in reads:
            if not (spec == ACTIVATION and n in specs):
                specs[n] = spec
            if shares:
                _join(parents, n, node)
    unsigned = {_root(parents, n) for n in unsigned}
    signed = frozenset(n for n in specs if _root(parents, n) not in unsigned)
    return Demand(specs, inputs, parents, signed, _hints(context, specs, inputs))


def _root(parents: Mapping[fx.Node, fx.Node], node: fx.Node) -> fx.Node:
    while node in parents:
        node = parents[node]
    return node


def _join(parents: dict[fx.Node, fx.Node], a: fx.Node, b: fx.Node) -> None:
    a, b = _root(parents, a), _root(parents, b)
    if a is not b:
        parents[b] = a


def _hints(
    context: Context,
    specs: Mapping[fx.Node, QSpec],
    inputs: Mapping[fx.Node, tuple[fx.Node, ...]],
) -> frozenset[fx.Node]:
    """The outputs of int8 convolutions before float operators, or before an activation.

    Those that only float operators read, all before integers; and what an activation of the same
    site reads, except for a clip, which the ends of the integers do as well.
    """
    rules = [context.rule_of(n) for n in inputs]
    activated = [r for r in rules if r is not None and r.accumulator and len(r.nodes) > 1]
    found = {r.operator for r in activated if not is_operator(r.root, *CLIPS)}
    leads_on: set[fx.Node] = set()
    for node in reversed(context.module.graph.nodes):
        rule = context.rule_of(node)
        reads = node in inputs
        if node.users and leads_on.issuperset(node.users):
            leads_on.add(node)
            if reads and node not in specs and rule is not None and rule.accumulator:
                found.add(node)
        if reads and rule is not None:
            leads_on.update(rule.nodes)
    return frozenset(found)
