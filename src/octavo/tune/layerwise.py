"""Run a graph on several batches side by side, layer by layer, and change it on the way."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import torch
from rich.console import Console
from rich.progress import track
from torch import Tensor, fx

from ..convert import Emission
from ..graph.interpreter import Interpreter
from ..graph.tensors import drop_unread
from ..graph.verify import checkpoint


class LayerwiseRunner:
    """Runs a graph on several inputs, all of them through one operator before the next."""

    def __init__(self, module: fx.GraphModule, batches: Sequence[Sequence[Tensor]]) -> None:
        self.module, self.batches = module, batches
        self.interpreters = [Interpreter(module) for _ in batches]
        for interpreter, inputs in zip(self.interpreters, batches, strict=True):
            interpreter.start(inputs)

    def __iter__(self) -> Iterator[fx.Node]:
        """Each node after it ran on all inputs; the values it read are still available."""
        for node in self.module.graph.nodes:
            self.run(node)
            yield node
            for interpreter in self.interpreters:
                interpreter.release(node)

    def run(self, node: fx.Node) -> None:
        """Compute a node's values, or compute them again from what it reads now."""
        for interpreter in self.interpreters:
            interpreter.step(node)

    def values(self, node: fx.Node) -> list[Tensor]:
        """A node's value for each of the inputs."""
        return [interpreter.env[node] for interpreter in self.interpreters]

    def replace(self, node: fx.Node, values: Sequence[Tensor]) -> None:
        """Replace a node's values, for the nodes after it."""
        for interpreter, value in zip(self.interpreters, values, strict=True):
            interpreter.env[node] = value


LayerHook = Callable[[fx.Node], None]  # may change a node just run, and run it again
Method = Callable[[Emission, LayerwiseRunner], LayerHook]


@torch.no_grad()
def tune_layers(
    emission: Emission, batches: Sequence[Sequence[Tensor]], *methods: Method
) -> Emission:
    """The same graph emitted anew and tuned, layer by layer in graph order.

    Each layer reads the outputs of the layers before it as tuned; the methods change it in turn.
    batches: flat inputs, a few dozen samples; memory is that of one forward pass of them all
    together, plus another where biases are corrected.
    """
    tuned = emission.again()
    runner = LayerwiseRunner(tuned.module, batches)
    hooks = [method(tuned, runner) for method in methods]
    console = Console(stderr=True)
    hidden = not console.is_terminal
    total = len(tuned.module.graph.nodes)
    for node in track(runner, "tuning", total, console=console, transient=True, disable=hidden):
        for hook in hooks:
            hook(node)
    tuned.module.graph.eliminate_dead_code()
    drop_unread(tuned.module)
    tuned.module.recompile()
    checkpoint(tuned.module, "tune")
    return tuned
