"""Precision and SQNR of each operator, as metadata of exported files for viewers such as Netron."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

from torch import fx

from ..graph import ops
from ..graph.names import full_name
from ..metrics import decibels
from ..report import Report, Row


def facts_of(report: Report) -> dict[str, str]:
    """The output's SQNR, and a line for each operator."""
    rows = {f"{row.path}/{row.name}".strip("/"): _fact(row) for row in report.rows}
    return {"output": f"{decibels(report.output_sqnr)} dB"} | rows


def facts_by_node(graph: fx.Graph, report: Report) -> dict[fx.Node, str]:
    """The line of the row that each operator of a quantized graph belongs to.

    A row is named like its last operator; one before it, as the convolution of conv2d + relu, is
    read by nothing but what follows in its row.
    """
    rows = {row.name: _fact(row) for row in report.rows}
    found: dict[fx.Node, str] = {}
    for node in reversed(graph.nodes):
        after = next(iter(node.users)) if len(node.users) == 1 else None
        if node.name in rows:
            found[node] = rows[node.name]
        elif node.op == "call_function" and after in found and node.target is not ops.quantize:
            found[node] = found[after]
    return found


def _fact(row: Row) -> str:
    noise = "" if row.sqnr is None else f", {decibels(row.sqnr)} dB"
    return f"{row.operator}: {row.precision}{noise}"


def describe_layers(path: Path, facts: dict[fx.Node, str]) -> None:
    """Enter facts in a file of OpenVINO's IR, as an attribute of layers, which OpenVINO ignores."""
    by_name = {full_name(node): fact for node, fact in facts.items()}
    tree = ElementTree.parse(path)
    for layer in tree.iter("layer"):
        if layer.get("name") not in by_name:
            continue
        data = layer.find("data")
        if data is None:
            data = ElementTree.Element("data")
            layer.insert(0, data)
        data.set("octavo", by_name[layer.get("name", "")])
    tree.write(path, encoding="utf-8", xml_declaration=True)
