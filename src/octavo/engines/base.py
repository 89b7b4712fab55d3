"""What all engines share: the registry, and the callable that an engine returns.

An engine is a function registered under a name. It takes a program (a `QuantizedModel`, or any
graph with its signature) and options, and returns a callable that is called like the model.
"""

from __future__ import annotations

import functools
import importlib
import inspect
import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
import torch.utils._pytree as pytree
from torch import fx

from ..capture.signature import Signature
from ..errors import EngineError


@runtime_checkable
class Program(Protocol):
    """What an engine compiles: a flat graph of ATen operators, and how the model is called."""

    @property
    def graph_module(self) -> fx.GraphModule:
        """Flat tensors in, a flat tuple out."""

    @property
    def signature(self) -> Signature:
        """Converts a call to the graph's inputs, and the graph's outputs to the model's."""


@dataclass(frozen=True)
class GraphProgram:
    """A program that is not a `QuantizedModel`: a float graph, or one that is still being tuned."""

    graph_module: fx.GraphModule
    signature: Signature


Engine = Callable[..., Callable[..., Any]]
ENGINES: dict[str, Engine] = {}
# Octavo's own engines: each module is imported on first use, and registers its engine.
BUILT_IN = {
    "onnxruntime": "octavo.engines.onnx.engine",
    "openvino": "octavo.engines.openvino.engine",
    "reference": "octavo.engines.reference",
    "torch_int8": "octavo.engines.torch_int8.engine",
}
# Free sizes to try, other than the batch: some models accept only long inputs, some only short.
LENGTHS = (2, 64, 4096)


def register_engine(name: str) -> Callable[[Engine], Engine]:
    """Decorator: register an engine under `name`, for `QuantizedModel.compile(name)`.

    >>> @register_engine("eager")
    ... def eager(model):
    ...     return model
    """

    def register(engine: Engine) -> Engine:
        ENGINES[name] = engine
        return engine

    return register


def compile_program(program: Program, name: str = "openvino", **options: Any) -> Any:
    """Compile a program with the engine `name`; raises EngineError if there is no such engine."""
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
    """Compile any flat graph with OpenVINO, the engine that graphs are tuned and timed for."""
    return compile_program(GraphProgram(module, signature), "openvino", **options)


def examples(
    signature: Signature, lengths: Sequence[int] = LENGTHS
) -> Iterator[tuple[torch.Tensor, ...]]:
    """Example inputs to try in turn: zeros, one set for each of `lengths`.

    Without a free size other than the batch, all of them would be the same: there is only one.
    """
    has_free_length = any(None in shape[1:] for _, shape in signature.inputs)
    for length in lengths if has_free_length else lengths[:1]:
        yield signature.examples(length)


@dataclass(frozen=True)
class ProfiledOperator:
    """One operator of a compiled model, as the engine executes it.

    path: the module it comes from, "" for the model itself. A reorder counts to the module that
        reads its output.
    kind: "Convolution", "FullyConnected", "Reorder", "Subgraph" (several, compiled as one), ...
    kernel: the engine's name of the kernel, such as "brgconv_avx512_I8".
    reads, gives: data types of its first input and first output: "u8", "i8", "f32", ...
    nodes: the nodes of the quantized graph that it computes, as module.path/node. With more than
        one, they are fused.
    milliseconds: time per call, averaged over the calls.
    """

    path: str
    kind: str
    kernel: str
    reads: str
    gives: str
    nodes: tuple[str, ...]
    milliseconds: float


class EngineModel(ABC):
    """A compiled model: called like the model; takes torch tensors or numpy arrays."""

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
        """Start a call and return at once; the Future's `result()` is the call's return value.

        As many calls run at once as there are CPUs. Compiled with hint="throughput", OpenVINO
        gives each call some of the CPUs. The inputs must not change until the result is ready.

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

    def profile(self, inputs: Sequence[torch.Tensor], rounds: int) -> list[ProfiledOperator] | None:
        """The operators that a call on `inputs` executes, the most expensive first.

        Times are averaged over `rounds` calls. None if the engine does not time its operators.
        """
        return None

    @property
    def in_pytorch(self) -> tuple[str, ...]:
        """Module path and name of each operator that PyTorch runs, since OpenVINO cannot."""
        return ()
