"""The report: what became of each operator, as a table and as data."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from rich.console import Group
from rich.table import Table
from torch import fx, nn
from torch.utils._pytree import tree_leaves

from .capture.signature import Signature
from .details import Details, Spread, spread_from_dict
from .graph import ops
from .graph.names import module_path, operator_name
from .graph.tensors import attribute, tensor_bytes
from .metrics import Step, decibels
from .page import write_page
from .page.report import report_page
from .printed import Printed
from .sites.sites import Sites
from .tune.tune import Tuned


@dataclass(frozen=True)
class Row:
    """One operator, or several that became one.

    site: its number, for `Config.keep_float`; None for an operator without a rule.
    sqnr: in dB against float on calibration data, of the site's output before it is quantized
        (noise from the sites before it included); None where it was not measured.
    low, high: the real range that its output's integers cover; None where the output is float.
    multiply_adds: per sample.
    activations: how its inputs are rounded: "static", "dynamic" or "float"; "" in older files.
    local_sqnr: in dB, by its own rounding alone, its inputs exact.
    noise_share: of the noise at the model's outputs, an estimate, 0 to 1.
    reads: the `name` of each row whose value it reads.
    """

    site: int | None
    path: str
    name: str
    operator: str
    precision: str
    reason: str
    weight_bits: int | None
    activation_bits: int | None
    low: float | None
    high: float | None
    sqnr: float | None
    multiply_adds: int
    parameters: int
    bytes_before: int
    bytes_after: int
    activations: str = ""
    local_sqnr: float | None = None
    noise_share: float | None = None
    reads: tuple[str, ...] = ()


@dataclass(frozen=True)
class Latency:
    """The median of a compiled model's calls, in milliseconds; `octavo.bench.latency` measures it.

    batch: samples in a call. threads: of the processor.
    """

    engine: str
    batch: int
    threads: int
    milliseconds: float

    def __str__(self) -> str:
        samples = f"batch {self.batch}, threads: {self.threads}"
        return f"{self.milliseconds:.3f} ms a call in {self.engine} ({samples})"


@dataclass(frozen=True)
class Report(Printed):
    """`rows`, one per site in graph order, and totals. `print(report)` shows the table.

    output_sqnr is in dB, of the whole model's output on calibration data (the worst, if there are
    several); bytes are those of all tensors, before and after; steps are the methods tried to raise
    the SQNR and what each gained; notes say what else to know: sizes that are fixed, other types.
    spreads are histograms by the `name` of a row, which a file holds only if asked to. latency is
    None until it is measured.
    """

    rows: tuple[Row, ...]
    output_sqnr: float
    bytes_before: int
    bytes_after: int
    steps: tuple[Step, ...] = ()
    notes: tuple[str, ...] = ()
    spreads: Mapping[str, Spread] = field(default_factory=dict)
    latency: Latency | None = None

    @property
    def int8_share(self) -> float:
        """The share of multiply-adds that run in int8, 0 to 1."""
        total = sum(r.multiply_adds for r in self.rows)
        done = sum(r.multiply_adds for r in self.rows if r.precision == "int8")
        return done / total if total else 0.0

    def to_dict(self, histograms: bool = True) -> dict[str, Any]:
        """All of it as JSON data; infinite SQNRs become the strings "inf" and "-inf".

        histograms: with `spreads`, which take some kB for each site.
        """
        report = self if histograms else dataclasses.replace(self, spreads={})
        return Printed.to_dict(report) | {"int8_share": self.int8_share}

    def html(self, path: str | os.PathLike[str]) -> None:
        """Write the report as one page that needs no network; see `octavo.page`."""
        write_page(report_page(self.to_dict()), path)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Report:
        """The inverse of `to_dict`."""
        rows = tuple(
            Row(
                **row
                | {name: _decibels(row.get(name)) for name in ("sqnr", "local_sqnr")}
                | {"reads": tuple(row.get("reads", ()))}
            )
            for row in data["rows"]
        )
        spreads = {name: spread_from_dict(s) for name, s in data.get("spreads", {}).items()}
        steps = tuple(Step.from_dict(s) for s in data["steps"])
        sizes = data["bytes_before"], data["bytes_after"]
        notes = tuple(map(str, data.get("notes", ())))
        latency = Latency(**timed) if (timed := data.get("latency")) else None
        return cls(rows, float(data["output_sqnr"]), *sizes, steps, notes, spreads, latency)

    def __rich__(self) -> Group | Table:
        """The table for rich, and one of what a search has tried."""
        searched = [step for step in self.steps if step.gain is not None]
        return Group(self._table(), _steps_table(searched)) if searched else self._table()

    def _table(self) -> Table:
        count = sum(r.precision == "int8" for r in self.rows)
        latency = [] if self.latency is None else [str(self.latency)]
        tuned = [step.text() for step in self.steps if step.gain is None]
        table = Table(
            title=f"{count} of {len(self.rows)} operators and {self.int8_share:.1%} of "
            f"multiply-adds in int8, output SQNR {decibels(self.output_sqnr)} dB, "
            f"{_bytes(self.bytes_before)} -> {_bytes(self.bytes_after)}",
            title_justify="left",
            caption="\n".join([*latency, *tuned, *self.notes]),
            caption_justify="left",
        )
        table.add_column("#", justify="right")
        for column in ("module", "operator", "as"):
            table.add_column(column, overflow="fold")
        for column in ("bits w/a", "range", "SQNR dB", "noise", "parameters", "bytes"):
            table.add_column(column, justify="right")
        for r in self.rows:
            bits = f"{r.weight_bits or '-'}/{r.activation_bits or '-'}"
            span = "" if r.low is None else f"{r.low:.4g} .. {r.high:.4g}"
            size = f"{r.bytes_before:,} -> {r.bytes_after:,}" if r.bytes_before else ""
            kind = r.precision + (" dynamic" if r.activations == "dynamic" else "")
            kind += f": {r.reason}" if r.reason else ""
            parameters = f"{r.parameters:,}" if r.parameters else ""
            noise = "" if r.sqnr is None else decibels(r.sqnr)
            number = "" if r.site is None else str(r.site)
            share = "" if r.noise_share is None else f"{r.noise_share:.1%}"
            which = (number, r.path or r.name, r.operator, kind)
            table.add_row(*which, bits, span, noise, share, parameters, size)
        return table


def _decibels(value: float | str | None) -> float | None:
    return None if value is None else float(value)


def _bytes(count: int) -> str:
    return f"{count / 1e6:.2f} MB"


def _steps_table(steps: Sequence[Step]) -> Table:
    table = Table(
        title="tried on samples that nothing was tuned on; gain: mean over groups of them",
        title_justify="left",
    )
    table.add_column("setting", overflow="fold")
    for column in ("before dB", "after dB", "gain dB", "spread dB"):
        table.add_column(column, justify="right")
    table.add_column("kept")
    for s in steps:
        figures = decibels(s.before), decibels(s.after), f"{s.gain:+.2f}", f"{s.spread:.2f}"
        table.add_row(s.method, *figures, "yes" if s.kept else "no")
    return table


IGNORED = {"getitem", "sym_size", "copy_"}


def make_report(
    model: nn.Module,
    tuned: Tuned,
    details: Details,
    macs: Mapping[fx.Node, int],
    steps: tuple[Step, ...],
) -> Report:
    """Describe a finished quantization, in graph order, each site with its value's SQNR."""
    sites = tuned.emission.sites
    nodes = [n for n in sites.graph.graph.nodes if sites.roots.get(n, n) is n and _is_work(n)]
    known = set(nodes)
    rows = [
        dataclasses.replace(
            _row(tuned, node, macs),
            local_sqnr=details.local.get(node),
            noise_share=details.shares.get(node),
            reads=tuple(n.name for n in _read_by(node, sites, known)),
        )
        for node in nodes
    ]
    sizes = tensor_bytes(model), tensor_bytes(tuned.emission.module)
    signature = sites.graph.signature
    notes = () if signature is None else tuple(_notes(model, signature))
    if not sites.observed and any(site.activations == "dynamic" for site in sites.values()):
        notes = (*notes, "no calibration data was needed: all int8 operators have dynamic inputs")
    spreads = {node.name: s for node in nodes if (s := details.spreads.get(node)) and s != Spread()}
    return Report(tuple(rows), tuned.output.sqnr, *sizes, steps, notes, spreads)


def _read_by(node: fx.Node, sites: Sites, known: set[fx.Node]) -> list[fx.Node]:
    """The nodes with a row whose values a row's nodes read, through others that have none."""
    own = set(sites.rules[node].nodes) if node in sites else {node}
    todo, found = [i for n in own for i in n.all_input_nodes if i not in own], {}
    seen = set(todo)
    while todo:
        source = todo.pop()
        if source in known:
            found[source] = True
            continue
        more = [i for i in source.all_input_nodes if i not in seen]
        seen.update(more)
        todo += more
    return sorted(found)


def _notes(model: nn.Module, signature: Signature) -> Iterator[str]:
    if signature.output_types:
        kinds = sorted({str(p.dtype).removeprefix("torch.") for p in model.parameters()})
        kinds = [k for k in kinds if k != "float32"] or ["autocast"]
        yield f"quantized as float32: the model computes in {', '.join(kinds)}"
    for i, dimension, reason in signature.fixed:
        size = signature.inputs[i][1][dimension]
        what = "must not be 1" if size is None else f"is fixed at {size}"
        yield f"dimension {dimension} of input {i} {what}: {reason}"
    if signature.branches:
        conditions = " and ".join(signature.branches)
        yield f"sizes of inputs must meet {conditions}: forward branches there"


def _is_work(node: fx.Node) -> bool:
    """Whether a node computes tensors from tensors, unlike sizes, list items and constants."""
    if not node.op.startswith("call") or operator_name(node) in IGNORED:
        return False
    return all(_tensors(n) for n in ([node], node.all_input_nodes))


def _tensors(nodes: list[fx.Node]) -> bool:
    values = tree_leaves([n.meta.get("val") for n in nodes])
    return any(isinstance(v, torch.Tensor) for v in values)


def _row(tuned: Tuned, node: fx.Node, macs: Mapping[fx.Node, int]) -> Row:
    emission, sites = tuned.emission, tuned.emission.sites
    site = sites.get(node)
    nodes = site.rule.nodes if site else (node,)
    precision, reason = sites.verdict(node)
    activations = site.activations if site else "float"
    reads = site.int8_inputs if site and activations == "static" else ()
    weights = site.int8_weights if site else {}
    dynamic = (2 * ops.LARGEST).bit_length() if activations == "dynamic" else None
    demanded = node in sites.demand.specs
    low, high = emission.qparams[node].range if demanded else (None, None)
    noise = tuned.sites.get(node)
    measured = noise is not None and noise.signal + noise.noise > 0
    constants = [i for n in nodes for i in n.all_input_nodes if i.op == "get_attr"]
    values = {i: attribute(sites.graph.module, i.target) for i in constants}
    sizes = {i: v for i, v in values.items() if isinstance(v, torch.Tensor)}
    before = sum(t.numel() * t.element_size() for t in sizes.values())
    saved = sum(sizes[i].numel() * 3 - 4 * sizes[i].shape[axis] for i, axis in weights.items())
    return Row(
        site=site.number if site else None,
        path=module_path(nodes[0]),
        name=node.name,
        operator=" + ".join(operator_name(n) for n in nodes),
        precision=precision,
        reason=reason,
        weight_bits=sites.weight_spec.bits if weights else None,
        activation_bits=sites.demand.spec_of(reads[0]).bits if reads else dynamic,
        low=low,
        high=high,
        sqnr=noise.sqnr if noise and measured else None,
        multiply_adds=sum(macs.get(n, 0) for n in nodes),
        parameters=sum(t.numel() for t in sizes.values()),
        bytes_before=before,
        bytes_after=before - saved,
        activations=activations,
    )
