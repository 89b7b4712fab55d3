"""The reference engine: the quantized graph in PyTorch, on any device."""

from collections.abc import Sequence
from typing import Any

import torch

from .base import EngineModel, Program, register_engine


@register_engine("reference")
def reference(model: Program) -> EngineModel:
    """The graph as it is, without gradients: the other engines are tested against it."""
    return ReferenceModel(model)


class ReferenceModel(EngineModel):
    """A graph that PyTorch runs operator by operator."""

    def __init__(self, program: Program) -> None:
        super().__init__(program.signature)
        self.graph_module = program.graph_module

    @torch.no_grad()
    def run(self, inputs: Sequence[torch.Tensor]) -> Sequence[Any]:
        """One inference on the flat tensors of a call."""
        return self.graph_module(*inputs)
