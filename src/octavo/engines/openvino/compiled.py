"""CompiledModel: a model that OpenVINO runs as a whole."""

from __future__ import annotations

import os
import threading
from collections import Counter, OrderedDict
from collections.abc import Callable, Sequence
from functools import cache, cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from ...capture.signature import Signature
from ...errors import DataError, EngineError
from ..base import EngineModel, ProfiledOperator, cannot_run, refuse_after_fork
from .known_sizes import rewrite_for_known_sizes
from .profile import executed_operators

if TYPE_CHECKING:
    import openvino


def import_openvino() -> Any:
    """The package openvino; an EngineError that says how to install it if there is none."""
    try:
        import openvino
    except ImportError as e:
        raise EngineError(
            "the engine 'openvino' needs the package openvino: pip install openvino "
            f"(or use compile('reference')). Importing it failed: {e}"
        ) from e
    return openvino


def openvino_core() -> Any:
    """The one openvino.Core of this process, which is never dropped.

    OpenVINO gives the thread that makes a Core a stack for signal handlers, and frees it with the
    Core. If another thread drops the Core, the next signal that Python handles ends the process
    (seen in OpenVINO 2026.4).
    """
    core, process = _core_and_process()
    refuse_after_fork(process, "OpenVINO")
    return core


@cache
def _core_and_process() -> tuple[Any, int]:
    return import_openvino().Core(), os.getpid()


class CompiledModel(EngineModel):
    """A model compiled for OpenVINO.

    Each combination of input shapes is compiled on first use, since static shapes are faster. From
    the ninth combination on (`shapes`), one model for any shape is used, if `is_right` says so of
    it; else the oldest combination makes room. It may be called from several threads at once.

    guards: the operators of which the model's last output tells whether they read inside.
    """

    shapes = 8

    def __init__(
        self,
        built: openvino.Model,
        signature: Signature,
        settings: dict[str, Any],
        guards: Sequence[str] = (),
    ) -> None:
        super().__init__(signature)
        self.model, self.settings, self.guards = built, settings, guards
        self.process = os.getpid()
        self.by_shape: dict[tuple | None, Any] = {}  # None: any shape
        self.is_right: Callable[[CompiledModel], bool] = lambda model: True
        self.dtypes = [p.get_element_type().to_dtype() for p in built.get_parameters()]
        self.lock = threading.Lock()
        self.local = threading.local()

    def use_one_for_any_shape(self) -> None:
        """Use one model for all shapes from now on: slower, with other kernels."""
        with self.lock:
            self.shapes = 0
            self.by_shape.clear()
        self.local = threading.local()

    def in_bfloat16(self) -> CompiledModel:
        """See `EngineModel.in_bfloat16`."""
        if "BF16" not in openvino_core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
            raise EngineError("this CPU does not compute in bfloat16")
        settings = self.settings | {"INFERENCE_PRECISION_HINT": "bf16"}
        return CompiledModel(self.model, self.signature, settings, self.guards)

    def run(self, inputs: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        """One inference; the results share no memory with the model."""
        refuse_after_fork(self.process, "OpenVINO")
        arrays = [t.contiguous().numpy(force=True) for t in inputs]
        request = self._request(tuple(a.shape for a in arrays))
        for i, (array, dtype) in enumerate(zip(arrays, self.dtypes, strict=True)):
            request.bind(i, array if array.dtype == dtype else array.astype(dtype))
        try:
            results = request.infer(share_outputs=True).to_tuple()
        except RuntimeError as e:
            raise cannot_run("OpenVINO", inputs, str(e).strip().splitlines()[-1]) from e
        if self.guards:
            *results, are_inside = results
            _refuse_outside(self.guards, are_inside)
        return [torch.from_numpy(np.array(r)) for r in results]

    def profile(self, inputs: Sequence[torch.Tensor], rounds: int) -> list[ProfiledOperator]:
        """See `EngineModel.profile`. The model is compiled again, with OpenVINO's timers on."""
        settings = self.settings | {"PERF_COUNT": True}
        timed = CompiledModel(self.model, self.signature, settings, self.guards)
        timed.run(inputs)  # compiles
        (request,) = (r.request for r in timed.local.requests.values())
        milliseconds: Counter[str] = Counter()
        for _ in range(rounds):
            timed.run(inputs)
            for node in request.get_profiling_info():
                if node.status.name == "EXECUTED":
                    milliseconds[node.node_name] += 1e3 * node.real_time.total_seconds() / rounds
        return executed_operators(timed.model, request.get_compiled_model(), milliseconds)

    def _request(self, shapes: tuple) -> _Request:
        """This thread's request for these shapes."""
        cache = self.local.__dict__.setdefault("requests", OrderedDict())
        if shapes not in cache:
            cache[shapes] = _Request(self.compiled(shapes).create_infer_request())
            if len(cache) > max(self.shapes, 1):
                cache.popitem(last=False)
        cache.move_to_end(shapes)
        return cache[shapes]

    def compiled(self, shapes: tuple) -> Any:
        """The openvino.CompiledModel for these input shapes, or the one for any shape."""
        with self.lock:
            full = len(self.by_shape) >= self.shapes
            if full and shapes not in self.by_shape and not self._any_shape_is_right:
                del self.by_shape[next(iter(self.by_shape))]
                full = False
            if shapes not in self.by_shape and not full:
                try:
                    self.by_shape[shapes] = self._compile(shapes)
                except RuntimeError:  # some models compile for any shape only
                    self.by_shape[shapes] = self._any_shape()
            return self.by_shape[shapes] if shapes in self.by_shape else self._any_shape()

    @cached_property
    def _any_shape_is_right(self) -> bool:
        if self.shapes == 0:
            return True
        other = CompiledModel(self.model, self.signature, self.settings, self.guards)
        other.use_one_for_any_shape()
        right = self.is_right(other)
        if right and None in other.by_shape:  # compiled for that comparison
            self.by_shape[None] = other.by_shape[None]
        return right

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
        rewrite_for_known_sizes(model)
        return openvino_core().compile_model(model, "CPU", self.settings)


def _refuse_outside(names: Sequence[str], are_inside: Sequence[bool]) -> None:
    """DataError naming the first operator with an index outside of the tensor that it reads."""
    for name, is_inside in zip(names, are_inside, strict=True):
        if not is_inside:
            raise DataError(
                f"{name}: an index is outside of the tensor that it reads from, for which PyTorch "
                "raises IndexError. Check this call's ids, and its length if the network computes "
                "positions"
            )


class _Request:
    """An infer request that reads its inputs in place, without a copy."""

    def __init__(self, request: Any) -> None:
        self.request, self.infer = request, request.infer
        self.bound: dict[int, np.ndarray] = {}

    def bind(self, i: int, array: np.ndarray) -> None:
        """Use `array` as input `i`, and keep it alive until another array takes its place.

        Binding the same memory again, as a loop over one buffer does, costs nothing.
        """
        last = self.bound.get(i)
        if last is None or last.ctypes.data != array.ctypes.data:
            tensor = import_openvino().Tensor(array, shared_memory=True)
            self.request.set_input_tensor(i, tensor)
            self.bound[i] = array
