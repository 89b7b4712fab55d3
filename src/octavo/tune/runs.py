"""Run a graph on several batches side by side, operator by operator."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from torch import Tensor, fx


class Runs:
    """Runs a graph on several inputs, all of them through one operator before the next."""

    def __init__(self, module: fx.GraphModule, batches: Sequence[Sequence[Tensor]]) -> None:
        self.graph = module.graph
        self.interpreters = [fx.Interpreter(module) for _ in batches]
        for interpreter, inputs in zip(self.interpreters, batches, strict=True):
            interpreter.args_iter = iter(inputs)

    def __iter__(self) -> Iterator[fx.Node]:
        """Each node once all inputs have passed it; what it read is still there."""
        for node in self.graph.nodes:
            self.run(node)
            yield node
            for i in self.interpreters:
                for last in i.user_to_last_uses.get(node, ()):
                    del i.env[last]

    def run(self, node: fx.Node) -> None:
        """Compute a node's values again, from what it reads now."""
        for i in self.interpreters:
            i.env[node] = i.run_node(node)

    def values(self, node: fx.Node) -> list[Tensor]:
        """A node's value for each of the inputs."""
        return [i.env[node] for i in self.interpreters]

    def replace(self, node: fx.Node, values: Sequence[Tensor]) -> None:
        """Let what follows read these values of a node."""
        for i, value in zip(self.interpreters, values, strict=True):
            i.env[node] = value
