"""The OpenVINO engine: Intel's and ARM's CPU kernels, int8 end to end.

The openvino.Model is built straight from the graph, operator by operator, which takes
milliseconds. A quantize -> dequantize pair becomes one FakeQuantize, an int8 weight a constant
with its scale; OpenVINO fuses these into integer kernels. A graph with an operator outside the
table goes as a whole through OpenVINO's PyTorch frontend; one that this cannot convert either is
run in part by PyTorch.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import fx

from ...capture.signature import Signature
from ...errors import EngineError
from ..base import EngineModel, register_engine

if TYPE_CHECKING:
    import openvino

    from ...model import QuantizedModel


def import_openvino() -> Any:
    """The openvino package; EngineError, saying how to get it, where there is none."""
    try:
        import openvino
    except ImportError as e:
        raise EngineError(
            "the engine 'openvino' needs the package openvino: pip install openvino "
            f"(or use compile('reference')). Importing it failed: {e}"
        ) from e
    return openvino


@register_engine("openvino")
def openvino_engine(
    model: QuantizedModel, threads: int | None = None, hint: str = "latency"
) -> EngineModel:
    """Compile for OpenVINO's CPU plugin.

    What OpenVINO cannot run of the model, such as Fourier transforms, runs in PyTorch: a
    PartitionWarning tells, and `in_pytorch` of the compiled model lists it.

    threads: at most so many; default as OpenVINO decides, all physical cores.
    hint: "latency" (one call at a time is fastest) or "throughput" (many at once).
    """
    return compile_graph(model.graph_module, model.signature, threads, hint)


def compile_graph(
    module: fx.GraphModule, signature: Signature, threads: int | None = None, hint: str = "latency"
) -> EngineModel:
    """Compile any flat graph of ATen operators, quantized or float; see `openvino_engine`."""
    openvino = import_openvino()
    if hint not in ("latency", "throughput"):
        raise EngineError(f"hint={hint!r}: choose 'latency' or 'throughput'")
    # Left to itself OpenVINO computes the float parts in bfloat16 where the CPU has it, which
    # costs up to 15 dB at the output and is no faster beside int8.
    settings: dict[str, Any] = {
        "PERFORMANCE_HINT": hint.upper(),
        "INFERENCE_PRECISION_HINT": "f32",
    }
    if threads is not None:
        settings["INFERENCE_NUM_THREADS"] = threads
    core = openvino.Core()
    try:
        built = build(module, signature)
    except EngineError:
        from .partition import PartitionedModel

        return PartitionedModel(core, module, signature, settings)
    return CompiledModel(core, built, signature, settings)


class CompiledModel(EngineModel):
    """A model compiled for OpenVINO as a whole.

    Each shape of inputs is compiled when first seen (static shapes are faster); after `shapes`
    of them a model for any shape is used. May be called from several threads at once.
    """

    shapes = 8

    def __init__(
        self, core: Any, built: openvino.Model, signature: Signature, settings: dict[str, Any]
    ) -> None:
        super().__init__(signature)
        self.core, self.model, self.settings = core, built, settings
        self.by_shape: dict[tuple | None, Any] = {}  # None: any shape
        self.dtypes = [p.get_element_type().to_dtype() for p in built.get_parameters()]
        self.lock = threading.Lock()
        self.local = threading.local()

    def run(self, inputs: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        """One inference; the results are the caller's own."""
        arrays = [t.contiguous().numpy(force=True) for t in inputs]
        request = self._request(tuple(a.shape for a in arrays))
        for i, (array, dtype) in enumerate(zip(arrays, self.dtypes, strict=True)):
            request.bind(i, array if array.dtype == dtype else array.astype(dtype))
        results = request.infer(share_outputs=True).to_tuple()
        return [torch.from_numpy(np.array(r)) for r in results]

    def _request(self, shapes: tuple) -> _Request:
        """This thread's request for these shapes."""
        cache = self.local.__dict__.setdefault("requests", OrderedDict())
        if shapes not in cache:
            cache[shapes] = _Request(self.compiled(shapes).create_infer_request())
            if len(cache) > self.shapes:
                cache.popitem(last=False)
        cache.move_to_end(shapes)
        return cache[shapes]

    def compiled(self, shapes: tuple) -> Any:
        """The openvino.CompiledModel for input shapes; one for any shape beyond `shapes` many."""
        with self.lock:
            if shapes not in self.by_shape and len(self.by_shape) < self.shapes:
                try:
                    self.by_shape[shapes] = self._compile(shapes)
                except RuntimeError:  # some models compile for any shape only
                    self.by_shape[shapes] = self._any_shape()
            return self.by_shape[shapes] if shapes in self.by_shape else self._any_shape()

    def _any_shape(self) -> Any:
        if None not in self.by_shape:
            try:
                self.by_shape[None] = self._compile(None)
            except RuntimeError as e:
                raise EngineError(
                    f"OpenVINO cannot compile this model: {e}\nRun it with compile('reference')"
                ) from e
        return self.by_shape[None]

    def _compile(self, shapes: tuple | None) -> Any:
        model = self.model.clone()
        if shapes is not None:
            outputs = [p.output(0) for p in model.get_parameters()]
            model.reshape(dict(zip(outputs, shapes, strict=True)))
        return self.core.compile_model(model, "CPU", self.settings)


class _Request:
    """An infer request that reads its inputs where they lie."""

    def __init__(self, request: Any) -> None:
        self.request, self.infer = request, request.infer
        self.bound: dict[int, np.ndarray] = {}

    def bind(self, i: int, array: np.ndarray) -> None:
        """Let input `i` be `array`; free when it is the last call's, held until another is."""
        last = self.bound.get(i)
        if last is None or last.ctypes.data != array.ctypes.data:
            tensor = import_openvino().Tensor(array, shared_memory=True)
            self.request.set_input_tensor(i, tensor)
            self.bound[i] = array


def build(module: fx.GraphModule, signature: Signature) -> openvino.Model:
    """The graph as an openvino.Model with the free dimensions free."""
    import_openvino()
    from .build import Builder
    from .frontend import convert_by_frontend
    from .ops import Unsupported

    try:
        return Builder(module, signature).build()
    except Unsupported:
        return convert_by_frontend(module, signature)
