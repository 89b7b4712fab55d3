"""The table that lowers ATen operators to OpenVINO's opset.

An entry takes the node's arguments: tensors as openvino outputs, numbers as they are, and sizes
that depend on the batch as scalar outputs. It raises Unsupported for arguments it cannot handle;
the operator is then converted alone by OpenVINO's own PyTorch frontend, or runs in PyTorch. The
entries are in `arithmetic`, `shapes`, `pieces`, `resize`, `masks`, `recurrent` and `sizes`, which
enter them when imported.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import fx

TABLE: dict[Any, Callable[..., Any]] = {}


class Unsupported(Exception):
    """An operator, or a form of it, that the table cannot lower; `node` is known from the graph."""

    def __init__(self, reason: str, node: fx.Node | None = None) -> None:
        super().__init__(reason)
        self.node = node


def lowers(*names: Any) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Decorator: enter a function for ATen operators, by name, or for Python functions."""

    def enter(fn: Callable[..., Any]) -> Callable[..., Any]:
        for name in names:
            TABLE[getattr(torch.ops.aten, name) if isinstance(name, str) else name] = fn
        return fn

    return enter
