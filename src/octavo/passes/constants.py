"""Compute once, here, what depends only on parameters and numbers."""

import operator

import torch
from torch import Tensor, fx
from torch._ops import OpOverload

from ..capture.inplace import FACTORIES, evaluated, is_random, mutates
from ..graph.names import own_path
from ..graph.tensors import attribute, new_attribute

aten = torch.ops.aten

# A constant may grow (a bias table gathered into a matrix), but not without bound.
LARGEST_GROWTH = 16
ALWAYS_FINE = 1 << 16


def fold_constants(module: fx.GraphModule) -> None:
    """get_attr -> permute -> ... becomes one get_attr of the result.

    Values that the model writes to (state), random values and values much larger than their inputs
    are not folded.
    """
    state = {n.args[0].target for n in module.graph.nodes if mutates(n)}
    for node in module.graph.nodes:
        inputs = node.all_input_nodes
        if not isinstance(node.target, OpOverload) or mutates(node) or is_random(node):
            continue
        if node.target in FACTORIES and inputs == [node.args[0]]:
            inputs = []
        elif any(n.op != "get_attr" or n.target in state for n in inputs):
            continue
        result = evaluated(module, node, {})
        read = sum(attribute(module, n.target).numel() for n in inputs)
        most = LARGEST_GROWTH * read + ALWAYS_FINE
        if isinstance(result, Tensor) and result.numel() <= most:
            _replace(module, node, result)
        elif isinstance(result, list | tuple) and all(isinstance(r, Tensor) for r in result):
            for part in [u for u in node.users if u.target is operator.getitem]:
                _replace(module, part, result[part.args[1]])


def _replace(module: fx.GraphModule, node: fx.Node, value: Tensor) -> None:
    with module.graph.inserting_before(node):
        new = new_attribute(module, own_path("constants", node.name), value.contiguous())
    new.meta = dict(node.meta)
    node.replace_all_uses_with(new)
