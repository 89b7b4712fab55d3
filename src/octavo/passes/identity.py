"""Operators that do nothing at inference: dropout, identity, contiguous, checks; empty parts."""

from typing import Any

import torch
from torch import fx

from ..capture.inplace import mutates

aten = torch.ops.aten

DROPOUTS = {aten.dropout.default, aten.feature_dropout.default, aten.alpha_dropout.default}
IDENTITIES = {
    *DROPOUTS,
    aten.contiguous.default,
    aten.clone.default,
    aten.detach.default,
    aten.alias.default,
    aten.lift_fresh_copy.default,
}
VIEWS = {  # their input may have been made contiguous for them
    aten.view.default: aten.reshape.default,
    aten._unsafe_view.default: aten.reshape.default,
    aten.view_as.default: aten.reshape_as.default,
}
LAYOUTS = {aten.contiguous.default, aten.clone.default}
BY_LAYOUT = {aten.view_as_complex.default, aten.as_strided.default, aten.view.dtype}
CHECKS = {
    aten._assert_async.msg,
    aten._assert_scalar.default,
    aten._assert_tensor_metadata.default,
    aten.sym_constrain_range_for_size.default,
}


def remove_identities(module: fx.GraphModule) -> None:
    """Drop them; a copy of a value that is written to later is not one of them."""
    stateful = any(mutates(n) for n in module.graph.nodes)
    for node in reversed(module.graph.nodes):
        if node.target in CHECKS:
            module.graph.erase_node(node)
        elif node.target in DROPOUTS and any(node.args[2:]):
            continue  # the model asked for it, as for Monte Carlo dropout
        elif node.target in LAYOUTS and any(u.target in BY_LAYOUT for u in node.users):
            continue
        elif node.target in IDENTITIES and not (stateful and node.target is aten.clone.default):
            node.replace_all_uses_with(node.args[0])
            module.graph.erase_node(node)
        elif node.target in VIEWS:
            node.target = VIEWS[node.target]
        elif node.target is aten.cat.default:
            _drop_empty_parts(node)


def _drop_empty_parts(cat: fx.Node) -> None:
    """Leave out tensors of shape (0,), which PyTorch ignores: caches begin with them."""
    parts: Any = cat.args[0]
    full = [p for p in parts if tuple(p.meta["val"].shape) != (0,)]
    if full:
        cat.update_arg(0, full)
    if len(full) == 1:
        cat.replace_all_uses_with(full[0])
        cat.graph.erase_node(cat)
