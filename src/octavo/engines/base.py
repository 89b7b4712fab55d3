"""What all engines share: the registry, and the callable that most of them return.

An engine is a function, entered by name. It takes a program (a `QuantizedModel`, or any graph with
its signature) and options, and returns a callable with the signature's structure.
"""

from __future__ import annotations

import functools
import importlib
import inspect
import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
import torch.utils._pytree as pytree
from torch import fx

from ..capture.signature import Signature
from ..errors import EngineError


class Program(Protocol):
    """What an engine runs: a flat graph of ATen operators and the calls that it stands for."""

    @property
    def graph_module(self) -> fx.GraphModule:
        """Flat tensors in, a flat tuple out."""

    @property
    def signature(self) -> Signature:
        """How a call becomes flat tensors, and the flat outputs the model's."""


@dataclass(frozen=True)
class GraphProgram:
    """A program that is no `QuantizedModel`: a float graph, or one that is still being tuned."""

    graph_module: fx.GraphModule
    signature: Signature


Engine = Callable[..., Callable[..., Any]]
ENGINES: dict[str, Engine] = {}
# Octavo's own, imported when first asked for: each registers itself.
BUILT_IN = {
    "onnxruntime": "octavo.engines.onnx.engine",
    "openvino": "octavo.engines.openvino.engine",
    "reference": "octavo.engines.reference",
    "torch_int8": "octavo.engines.torch_int8.engine",
}


def register_engine(name: str) -> Callable[[Engine], Engine]:
    """Decorator: enter an engine under `name`, for `QuantizedModel.compile(name)`.

    >>> @register_engine("eager")
    ... def eager(model):
    ...     return model
    """

    def enter(engine: Engine) -> Engine:
        ENGINES[name] = engine
        return engine

    return enter


def compile_program(program: Program, name: str = "openvino", **options: Any) -> Any:
    """The program made ready by the engine `name`; raises EngineError if there is none."""
    if name in BUILT_IN and name not in ENGINES:
        importlib.import_module(BUILT_IN[name])
    if name not in ENGINES:
        known = ", ".join(sorted({*ENGINES, *BUILT_IN}))
        raise EngineError(f"unknown engine {name!r}: choose one of {known}")
    engine = ENGINES[name]
    parameters = list(inspect.signature(engine).parameters)[1:]
    if unknown := [o for o in options if o not in parameters]:
        raise EngineError(
            f"engine {name!r} has no option {unknown[0]!r}; "
            f"it takes: {', '.join(parameters) or 'none'}"
        )
    return engine(program, **options)


def compile_graph(module: fx.GraphModule, signature: Signature, **options: Any) -> Any:
    """Any flat graph made ready by OpenVINO, the engine that graphs are tuned and timed for."""
    return compile_program(GraphProgram(module, signature), "openvino", **options)


class EngineModel(ABC):
    """Called like the model: torch tensors or numpy arrays in, torch tensors out."""

    def __init__(self, signature: Signature) -> None:
        self.signature = signature

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Called like the model; returns the model's output structure, of torch tensors."""
        return self.signature.unflatten(self.run(self.flatten(args, kwargs)))

    def flatten(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[torch.Tensor]:
        """The inputs of a call as `run` takes them."""
        if not all(isinstance(a, torch.Tensor) for a in (*args, *kwargs.values())):
            args, kwargs = pytree.tree_map_only(np.ndarray, torch.from_numpy, (args, kwargs))
        return self.signature.flatten(args, kwargs)

    def submit(self, *args: Any, **kwargs: Any) -> Future[Any]:
        """Start a call and return at once; the Future's `result()` is what the call gives.

        As many run at once as there are CPUs. Compiled with hint="throughput", OpenVINO gives
        each some of them. The inputs must stay as they are until the result is there.

        >>> import octavo, torch
        >>> fast = octavo.quantize(torch.nn.Linear(4, 2), torch.rand(8, 4)).compile()
        >>> futures = [fast.submit(torch.rand(n, 4)) for n in (1, 2, 3)]
        >>> [f.result().shape[0] for f in futures]
        [1, 2, 3]
        """
        return self._workers.submit(self, *args, **kwargs)

    @functools.cached_property
    def _workers(self) -> ThreadPoolExecutor:
        return ThreadPoolExecutor(os.cpu_count(), "octavo")

    @abstractmethod
    def run(self, inputs: Sequence[torch.Tensor]) -> Sequence[Any]:
        """One inference on the flat tensors of a call."""

    @property
    def in_pytorch(self) -> tuple[str, ...]:
        """Module path and name of each operator that PyTorch runs, since OpenVINO cannot."""
        return ()
