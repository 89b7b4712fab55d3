"""NodeBuilder: how passes add nodes."""

from typing import Any

import torch
from torch import fx
from torch._dispatch.python import enable_python_dispatcher
from torch._guards import detect_fake_mode
from torch.utils._pytree import tree_leaves

aten = torch.ops.aten


class NodeBuilder:
    """Adds nodes that replace another, with its module path and their own shapes."""

    def __init__(self, graph: fx.Graph, node: fx.Node) -> None:
        self.graph = graph
        self.meta = {k: v for k, v in node.meta.items() if k != "val"}
        self.mode = detect_fake_mode(node.meta.get("val"))

    def __call__(self, target: Any, *args: Any, **kwargs: Any) -> fx.Node:
        """A call of an ATen operator."""
        values = fx.map_arg((args, kwargs), lambda n: n.meta["val"])
        if self.mode is None or any(isinstance(v, torch.Tensor) for v in tree_leaves(values)):
            return self.node(target, args, kwargs, target(*values[0], **values[1]))
        # an operator of sizes alone, such as arange, would fix the dynamic ones otherwise
        with self.mode, enable_python_dispatcher():
            return self.node(target, args, kwargs, target(*values[0], **values[1]))

    def node(self, target: Any, args: tuple[Any, ...], kwargs: dict[str, Any], val: Any) -> fx.Node:
        """A call whose output, a tensor without data, is known."""
        node = self.graph.call_function(target, args, kwargs)
        node.meta = self.meta | {"val": val}
        return node

    def size(self, x: fx.Node, dim: int) -> Any:
        """A size: a number where it is known, else a node."""
        size = x.meta["val"].shape[dim]
        return size if isinstance(size, int) else self(aten.sym_size.int, x, dim)
