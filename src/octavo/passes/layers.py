"""Each layer of an nn.LSTM becomes an operator of its own, to be quantized or not by itself."""

import operator
from typing import Any

import torch
from torch import fx

from ..graph.builder import NodeBuilder

aten = torch.ops.aten
MADE = (aten.zeros.default, aten.ones.default)
WEIGHTS = {True: 4, False: 2}  # of a layer in one direction, with biases and without


def split_lstm_layers(module: fx.GraphModule) -> None:
    """lstm of n layers -> n calls of lstm. Projected states, and packed sequences, stay whole."""
    for node in module.graph.find_nodes(op="call_function", target=aten.lstm.input):
        arguments: Any = node.args
        weights, has_biases, layers, *_, bidirectional, _ = arguments[2:]
        count = layers * (1 + bidirectional)
        if layers > 1 and len(weights) == count * WEIGHTS[has_biases]:
            with module.graph.inserting_before(node):
                _split(NodeBuilder(module.graph, node), node)


def _split(emit: NodeBuilder, node: fx.Node) -> None:
    arguments: Any = node.args
    x, states, weights, has_biases, layers, dropout, train, bidirectional, first = arguments
    directions = 1 + bidirectional
    each = directions * WEIGHTS[has_biases]
    ends: list[list[fx.Node]] = []
    for i in range(layers):
        own = directions * i, directions * (i + 1)
        starts = [_part(emit, state, *own) for state in states]
        given = weights[each * i : each * (i + 1)]
        flags = (has_biases, 1, dropout, train, bidirectional, first)
        values = [node.meta["val"][0], *(s.meta["val"] for s in starts)]
        layer = emit.node(aten.lstm.input, (x, starts, given, *flags), {}, tuple(values))
        x, *last = (emit.node(operator.getitem, (layer, j), {}, v) for j, v in enumerate(values))
        ends.append(last)
    results = [x, *(emit(aten.cat.default, list(s), 0) for s in zip(*ends, strict=True))]
    for part in list(node.users):
        part.replace_all_uses_with(results[part.args[1]])  # type: ignore[index]
        node.graph.erase_node(part)
    node.graph.erase_node(node)


def _part(emit: NodeBuilder, states: fx.Node, start: int, stop: int) -> fx.Node:
    """The first states of a layer, among those of all; those that nn.LSTM makes, made anew."""
    if states.target not in MADE:
        return emit(aten.slice.Tensor, states, 0, start, stop)
    arguments: Any = states.args
    (_, *sizes), *rest = arguments
    return emit(states.target, [stop - start, *sizes], *rest, **states.kwargs)
