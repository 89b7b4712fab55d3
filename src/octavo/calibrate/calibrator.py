"""Calibration: run real inputs through the float graph and let observers look on."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, fx

from ..errors import DataError, OctavoError
from ..graph.names import describe

Watch = Callable[[fx.Node, Mapping[str, Any]], None]


class Values(Mapping[str, Any]):
    """The live values of an interpreter by node name."""

    def __init__(self, env: dict[fx.Node, Any], node: fx.Node, value: Any) -> None:
        self.values_ = {n.name: v for n, v in env.items()} | {node.name: value}

    def __getitem__(self, name: str) -> Any:
        return self.values_[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.values_)

    def __len__(self) -> int:
        return len(self.values_)


class Calibrator(fx.Interpreter):
    """Runs a graph and shows each watched node's value, with all live values, to its watchers.

    Values are freed at their last use, so memory is that of one forward pass.
    """

    def __init__(self, module: fx.GraphModule, watches: Mapping[str, list[Watch]]) -> None:
        super().__init__(module)
        self.watches = watches
        self.extra_traceback = False

    def run_node(self, n: fx.Node) -> Any:
        """Run one node; an error that is not Octavo's is told with the node's place."""
        try:
            value = super().run_node(n)
        except OctavoError:
            raise
        except Exception as e:
            shapes = [tuple(v.shape) for v in self.args_of(n) if isinstance(v, Tensor)]
            raise DataError(
                f"calibration stopped at {describe(n)} with inputs of shape {shapes}: {e}\n"
                "Calibration data must have the shapes and types that the model takes."
            ) from e
        if n.name in self.watches:
            values = Values(self.env, n, value)
            for watch in self.watches[n.name]:
                watch(n, values)
        return value

    def args_of(self, n: fx.Node) -> list[Any]:
        """The values of a node's inputs."""
        return [self.env[i] for i in n.all_input_nodes if i in self.env]

    @torch.no_grad()
    def calibrate(self, *inputs: Any) -> Any:
        """One pass over one batch; returns the graph's output."""
        return self.run(*inputs)
