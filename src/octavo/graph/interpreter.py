"""One interpreter for every use: runs a graph node by node and shows each value to a hook."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import fx

Hook = Callable[[fx.Node, Any, Mapping[fx.Node, Any]], Any]


class Interpreter(fx.Interpreter):
    """Runs a graph; `hook(node, value, env)` sees each value and returns what its consumers get.

    env: the values that are alive, by node. A value is freed after its last use, so memory is that
        of one forward pass, unless `keep` is set.
    at: the node being run; where an error is raised, the one that raised it.

    >>> seen = []
    >>> def hook(node, value, env):
    ...     seen.append(node.name)
    ...     return value
    >>> net = fx.symbolic_trace(torch.nn.ReLU())
    >>> _ = Interpreter(net, hook).run(torch.rand(2))
    >>> seen
    ['input_1', 'relu', 'output']
    """

    def __init__(self, module: fx.GraphModule, hook: Hook | None = None, keep: bool = False):
        super().__init__(module, garbage_collect_values=not keep)
        self.extra_traceback = False
        self.hook = hook
        self.at: fx.Node | None = None

    def run_node(self, n: fx.Node) -> Any:
        """Run one node and show its value to the hook."""
        self.at = n
        value = super().run_node(n)
        return value if self.hook is None else self.hook(n, value, self.env)

    # ---- step by step

    def start(self, inputs: Sequence[Any]) -> None:
        """Prepare to run node by node on these inputs."""
        self.env, self.args_iter = {}, iter(inputs)

    def step(self, node: fx.Node) -> None:
        """Run one node, or run it again, on the current values of its inputs."""
        self.env[node] = self.run_node(node)

    def release(self, node: fx.Node) -> None:
        """Free the values that nothing reads after `node`."""
        for last in self.user_to_last_uses.get(node, ()):
            del self.env[last]


def observe_values(
    module: fx.GraphModule, inputs: Sequence[Any], see: Callable[[fx.Node, Any], None]
) -> Any:
    """Run a graph, show every value to `see`, and return the output."""

    def hook(node: fx.Node, value: Any, env: Mapping[fx.Node, Any]) -> Any:
        see(node, value)
        return value

    with torch.no_grad():
        return Interpreter(module, hook).run(*inputs)
