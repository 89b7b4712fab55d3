"""QuantizedModel: what `quantize` returns."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import fx, nn

from .capture.signature import Signature
from .config import Config
from .engines.base import compile_program, warn_of_range
from .report import Report


class QuantizedModel(nn.Module):
    """A quantized model: called like the model it came from, returns the same structure.

    It is an ordinary nn.Module: `.to(device)`, `.to(dtype)`, `state_dict()` and torch.export
    work. Called directly, it runs the reference engine: float arithmetic in PyTorch on
    fake-quantized values, on any device, for checking rather than for speed. `compile()` makes it
    fast.

    graph_module: the quantized graph, flat tensors in, flat tuple out; its integers are plain uint8
        / int8 tensors, its operators are ATen's and those of `octavo/graph/ops.py`.
    """

    def __init__(
        self, graph_module: fx.GraphModule, signature: Signature, config: Config, report: Report
    ) -> None:
        super().__init__()
        self.graph_module = graph_module
        self.signature = signature
        self.config = config
        self._report = report
        self.called = False
        self.eval()

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Called like the original model; CaptureError for arguments of another structure."""
        inputs = self.signature.flatten(args, kwargs)
        warn_of_range(self, inputs)
        return self.signature.unflatten(self.graph_module(*inputs))

    @property
    def graph(self) -> fx.Graph:
        """The quantized graph."""
        return self.graph_module.graph

    @property
    def sqnr(self) -> float:
        """Of the outputs against the float model's, in dB, on calibration data."""
        return self._report.output_sqnr

    def __repr__(self) -> str:
        report = self._report
        count = sum(row.precision == "int8" for row in report.rows)
        return (
            f"QuantizedModel({count} of {len(report.rows)} operators int8, output SQNR "
            f"{report.output_sqnr:.1f} dB, {report.bytes_after / 1e6:.2f} MB)"
        )

    def report(self) -> Report:
        """Precision, reason, range and SQNR of each operator; print it, or read `.rows`."""
        return self._report

    def compile(  # type: ignore[override]  # nn.Module's is torch.compile in place
        self, engine: str = "openvino", **options: Any
    ) -> Callable[..., Any]:
        """A fast callable with the model's signature; see `octavo.engines` for engines.

        >>> import octavo
        >>> q = octavo.quantize(nn.Linear(4, 2), torch.rand(8, 4))
        >>> q.compile("reference")(torch.rand(3, 4)).shape
        torch.Size([3, 2])
        """
        return compile_program(self, engine, **options)

    def __deepcopy__(self, memo: dict[int, Any]) -> QuantizedModel:
        """As for any nn.Module; pickling, which goes through what a file holds, would take over."""
        memo[id(self)] = copied = type(self).__new__(type(self))
        copied.__dict__ = copy.deepcopy(self.__dict__, memo)
        return copied

    def _apply(self, fn: Callable[[torch.Tensor], torch.Tensor], recurse: bool = True) -> Any:
        """Move the tensors, and those that the graph creates when it runs."""
        super()._apply(fn, recurse)
        device = next((b.device for b in self.buffers()), None)
        for node in self.graph.nodes:
            if device is not None and isinstance(node.kwargs.get("device"), torch.device):
                node.kwargs = node.kwargs | {"device": device}
        self.graph_module.recompile()
        return self


class QuantizedParts(nn.Module):
    """A copy of a model with some submodules quantized; called like the model.

    parts: path of each quantized submodule -> its QuantizedModel, which can be saved by itself.
    """

    def __init__(self, model: nn.Module, parts: Mapping[str, nn.Module]) -> None:
        super().__init__()
        for path, part in parts.items():
            parent, _, name = path.rpartition(".")
            setattr(model.get_submodule(parent), name, part)
        self.model, self.paths = model, tuple(parts)
        self.eval()

    @property
    def parts(self) -> dict[str, Any]:
        """The quantized submodules by path."""
        return {path: self.model.get_submodule(path) for path in self.paths}

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Called like the original model; each quantized submodule runs as it does on its own."""
        return self.model(*args, **kwargs)

    def report(self) -> dict[str, Report]:
        """The report of each quantized submodule, by path."""
        return {path: part.report() for path, part in self.parts.items()}

    def compile(self, engine: str = "openvino", **options: Any) -> QuantizedParts:  # type: ignore[override]
        """A copy with the submodules compiled; see `QuantizedModel.compile`."""
        compiled = {p: Compiled(part.compile(engine, **options)) for p, part in self.parts.items()}
        memo = {id(part): part for part in self.parts.values()}  # these are replaced, not copied
        return QuantizedParts(copy.deepcopy(self.model, memo), compiled)


class Compiled(nn.Module):
    """A compiled submodule, in its place in a model."""

    def __init__(self, call: Callable[..., Any]) -> None:
        super().__init__()
        self.call = call

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Called like the submodule."""
        return self.call(*args, **kwargs)
