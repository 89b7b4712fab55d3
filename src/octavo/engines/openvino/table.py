"""The table that lowers ATen operators to OpenVINO's opset.

An entry takes the node's arguments: tensors as openvino outputs, numbers as they are, and sizes
that depend on the batch as scalar outputs. It raises Unsupported for arguments it cannot handle;
the engine then converts the graph with OpenVINO's own PyTorch frontend. The entries are in
`arithmetic`, `shapes` and `masks`, which enter them when imported.
"""

from collections.abc import Callable
from typing import Any

import torch

TABLE: dict[Any, Callable[..., Any]] = {}


class Unsupported(Exception):
    """An operator, or a form of it, that the table cannot lower."""


def lowers(*names: Any) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Decorator: enter a function for ATen operators, by name, or for Python functions."""

    def enter(fn: Callable[..., Any]) -> Callable[..., Any]:
        for name in names:
            TABLE[getattr(torch.ops.aten, name) if isinstance(name, str) else name] = fn
        return fn

    return enter
