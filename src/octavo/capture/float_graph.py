"""FloatGraph: the result of capture, which every later stage reads."""

from __future__ import annotations

from typing import Any, NamedTuple

from torch import Tensor, fx

from ..errors import CaptureError, DataError
from .signature import BatchDims, Signature


class FloatGraph(NamedTuple):
    """A model as a graph, and how calls of the model become the graph's inputs.

    A stage that changes the graph works on a copy: no stage changes what another one made.

    module: flat tensors in, a flat tuple out; its operators are ATen's.
    signature: None for a graph of modules and functions from `torch.fx.symbolic_trace`, which is
        called as it stands.
    """

    module: fx.GraphModule
    signature: Signature | None

    @property
    def graph(self) -> fx.Graph:
        """The graph of the module."""
        return self.module.graph

    @property
    def batched(self) -> BatchDims:
        """The dimension of each input that counts independent samples, if any; () for none."""
        return self.signature.batch if self.signature else ()

    def flatten(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[Tensor]:
        """The inputs of a calibration call in the graph's order; DataError for another call."""
        if self.signature is None:
            # the original quantizer of torch.fx took its arguments as one tuple
            single = len(args) == 1 and isinstance(args[0], tuple | list)
            return list(args[0] if single else args)
        try:
            return self.signature.flatten(args, kwargs)
        except CaptureError as e:
            raise DataError(f"calibration batches differ: {e}") from e

    def unflatten(self, outputs: Any) -> Any:
        """The model's output structure, from the graph's outputs."""
        return outputs if self.signature is None else self.signature.unflatten(outputs)


def copied(graph: FloatGraph) -> FloatGraph:
    """A copy of the graph, which shares the tensors."""
    copy = fx.Graph()
    copy.output(copy.graph_copy(graph.graph, {}))
    return FloatGraph(fx.GraphModule(graph.module, copy), graph.signature)
