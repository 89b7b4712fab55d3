"""Activations as uint8 only, for runtimes whose int8 activations are slow on x86."""

import torch
from torch import fx

from ..graph.tensors import set_buffer
from .qdq import Quantize


def make_unsigned(module: fx.GraphModule) -> None:
    """Turn int8 activations into uint8: integers and zero_points grow by 128, values stay."""
    shifted: set[str] = set()
    for node in module.graph.nodes:
        q = Quantize.of(module, node)
        if q is None or q.qmin >= 0:
            continue
        path = str(q.qparams[1].target)
        if path not in shifted:
            shifted.add(path)
            set_buffer(module, path, q.zero_point + 128)
        node.update_arg(3, q.qmin + 128)
        node.update_arg(4, q.qmax + 128)
        if not q.is_hint:
            node.update_arg(5, torch.uint8)
