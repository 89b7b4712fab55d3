"""Run a graph on several batches side by side, operator by operator, and change it on the way."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

import torch
from rich.console import Console
from rich.progress import track
from torch import Tensor, fx

from ..graph.tensors import drop_unread

if TYPE_CHECKING:
    from ..quantizer import Quantizer


class Runs:
    """Runs a graph on several inputs, all of them through one operator before the next."""

    def __init__(self, module: fx.GraphModule, batches: Sequence[Sequence[Tensor]]) -> None:
        self.module, self.batches = module, batches
        self.interpreters = [fx.Interpreter(module) for _ in batches]
        for interpreter, inputs in zip(self.interpreters, batches, strict=True):
            interpreter.args_iter = iter(inputs)

    def __iter__(self) -> Iterator[fx.Node]:
        """Each node once all inputs have passed it; what it read is still there."""
        for node in self.module.graph.nodes:
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


Visit = Callable[[fx.Node], None]  # may change a node just run, and run it again
Method = Callable[["Quantizer", Runs], Visit]


@torch.no_grad()
def tune_layers(
    quantizer: Quantizer,
    quantized: fx.GraphModule,
    batches: Sequence[Sequence[Tensor]],
    *methods: Method,
) -> None:
    """Tune a graph that `quantizer` has just emitted, layer by layer in graph order.

    Each layer gets the inputs that the layers before it, tuned, give; the methods change it in
    turn. batches: flat inputs, a few dozen samples; memory is that of one forward pass of them
    all together, and of another where biases are corrected.
    """
    runs = Runs(quantized, batches)
    visits = [method(quantizer, runs) for method in methods]
    console = Console(stderr=True)
    hidden = not console.is_terminal
    total = len(quantized.graph.nodes)
    for node in track(runs, "tuning", total, console=console, transient=True, disable=hidden):
        for visit in visits:
            visit(node)
    quantized.graph.eliminate_dead_code()
    drop_unread(quantized)
    quantized.recompile()
