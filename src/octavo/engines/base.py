"""What all engines share: the registry, and the callable that an engine returns.

An engine is a function registered under a name. It takes a program (a `QuantizedModel`, or any
graph with its signature) and options, and returns a callable that is called like the model.
"""

from __future__ import annotations

import functools
import importlib
import inspect
import math
import os
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Protocol, Self, runtime_checkable

import torch
from torch import fx

from ..capture.examples import calls, first_and_last
from ..capture.signature import Signature
from ..errors import EngineError, RangeWarning, one_line
from ..graph import ops
from ..graph.compare import agreement, difference
from ..graph.interpreter import Interpreter
from ..graph.recurrent import as_float_layer, rounded_lstm


@runtime_checkable
class Program(Protocol):
    """What an engine compiles: a flat graph of ATen operators, and how the model is called."""

    @property
    def graph_module(self) -> fx.GraphModule:
        """Flat tensors in, a flat tuple out."""

    @property
    def signature(self) -> Signature:
        """Converts a call to the graph's inputs, and the graph's outputs to the model's."""

    @property
    def sqnr(self) -> float:
        """Of its outputs, in dB: how much noise quantization has left in them."""


@dataclass(frozen=True)
class GraphProgram:
    """A program that is not a `QuantizedModel`: a float graph, or one that is still being tuned."""

    graph_module: fx.GraphModule
    signature: Signature
    sqnr: float = math.inf


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
LARGEST = 2**26  # numbers in an example: a file may claim any shape


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
    taken = [*parameters, *({"check"} - {*parameters})]
    if unknown := [o for o in options if o not in taken]:
        raise EngineError(
            f"engine {name!r} has no option {unknown[0]!r}; it takes: {', '.join(taken)}"
        )
    checks_itself = "check" in parameters
    own = {k: v for k, v in options.items() if checks_itself or k != "check"}
    compiled = engine(program, **own)
    if not isinstance(compiled, EngineModel):
        return compiled
    compiled.origin = (program, name, options)
    if not checks_itself and options.get("check", True):
        found = disagreement(compiled, program)
        if found is not None:
            raise EngineError(
                f"engine {name!r} computes something else than the reference: {found[1]}. Use "
                "another engine"
            )
    return compiled


# An engine rounds where the reference does, but for values at the edge between two integers, so
# the two differ by less than quantization does. Between these bounds, in dB, that is measured.
LEAST, MOST, MARGIN = 8.0, 30.0, 6.0


def least_agreement(program: Program, most: float = MOST) -> float:
    """The SQNR in dB that an engine's outputs must have against the reference's."""
    return min(max(program.sqnr - MARGIN, LEAST), most)


@torch.no_grad()
def disagreement(
    compiled: EngineModel, program: Program
) -> tuple[Sequence[torch.Tensor], str] | None:
    """Example inputs on which an engine's outputs are not the reference's, and how they differ."""
    least = least_agreement(program, compiled.agreement)
    found = first_and_last([*examples(program.signature)])  # the last of one sample
    for inputs, expected in calls(found, program.graph_module):
        try:
            got = compiled.run(inputs)
            reason = difference(expected, got, least)
            if reason:
                own = _rounding_noise(program.graph_module, inputs, expected) - MARGIN
                reason = difference(expected, got, min(max(own, LEAST), least))
        except Exception as e:
            reason = f"an error: {one_line(e)}"
        if reason:
            return inputs, f"on inputs of shape {_shapes(inputs)}, {reason}"
    return None


def _rounding_noise(
    module: fx.GraphModule, inputs: Sequence[torch.Tensor], expected: Sequence[Any]
) -> float:
    """The SQNR in dB that rounding the activations costs on these inputs.

    On made inputs it may cost much more than on the data.
    """
    return agreement(_Unrounded(module).run(*inputs), expected)


_ROUNDING = (ops.quantize, ops.dequantize, ops.quantize_groups, ops.dequantize_groups)


class _Unrounded(Interpreter):
    """Runs a graph without rounding its activations."""

    def call_function(self, target: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if target in _ROUNDING and args[0].is_floating_point():
            return args[0]
        if target is rounded_lstm:
            target, args = torch.ops.aten.lstm.input, as_float_layer(args)
        return super().call_function(target, args, kwargs)


def cannot_run(runtime: str, inputs: Sequence[torch.Tensor], reason: str) -> EngineError:
    """The error for inputs on which a runtime fails."""
    return EngineError(
        f"{runtime} cannot run this model on inputs of shapes {_shapes(inputs)}: {reason}"
    )


def refuse_after_fork(process: int, runtime: str) -> None:
    """EngineError in a process that was forked from the one that first used the runtime.

    The runtime's threads do not exist there, and a call would wait for them without end.
    """
    if os.getpid() != process:
        raise EngineError(
            f"this process was forked after {runtime} was used, whose threads do not exist "
            "in it. Start processes with spawn or forkserver, which compile the model anew "
            "(DataLoader(..., multiprocessing_context='spawn')), or fork before the first use"
        )


def _shapes(inputs: Sequence[torch.Tensor]) -> str:
    return ", ".join(str(tuple(t.shape)) for t in inputs)


def compile_graph(module: fx.GraphModule, signature: Signature, **options: Any) -> Any:
    """Compile any flat graph with OpenVINO, the engine that graphs are tuned and timed for.

    It is not compared with the reference: this is for trials.
    """
    return compile_program(GraphProgram(module, signature), "openvino", check=False, **options)


def examples(
    signature: Signature, lengths: Sequence[int] = LENGTHS
) -> Iterator[tuple[torch.Tensor, ...]]:
    """Example inputs to try in turn, at sizes at which the graph was compared with the model.

    For a signature that knows none: zeros, one set for each of `lengths`, or two if the batch is
    the only free size.
    """
    has_free_length = any(None in shape[1:] for _, shape in signature.inputs)
    found = signature.examples(lengths if has_free_length else lengths[:2], LARGEST)
    # tracing would take a free size of 1 for a fixed one: that example comes last
    yield from sorted(found, key=lambda inputs: _has_single(signature, inputs))


def _has_single(signature: Signature, inputs: Sequence[torch.Tensor]) -> bool:
    pairs = zip(signature.inputs, inputs, strict=True)
    return any(d is None and n == 1 for (_, s), t in pairs for d, n in zip(s, t.shape, strict=True))


class Called(Protocol):
    """A quantized or compiled model, which knows whether it has been called."""

    signature: Signature
    called: bool


def warn_of_range(model: Called, inputs: Sequence[torch.Tensor]) -> None:
    """RangeWarning if the first call of a model is of another scale than calibration."""
    if model.called or torch.compiler.is_compiling():
        return
    model.called = True
    if found := model.signature.unusual(inputs):
        warnings.warn(
            f"{found}: quantization clips or flattens them. Prepare the inputs as for calibration",
            RangeWarning,
            stacklevel=3,
        )


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


@functools.cache
def _threads(process: int) -> ThreadPoolExecutor:
    """Of a process: one that was forked has none of its parent's threads."""
    return ThreadPoolExecutor(os.cpu_count(), "octavo")


def _compiled_again(program: Program, name: str, options: dict[str, Any]) -> Any:
    return compile_program(program, name, **options)


class EngineModel(ABC):
    """A compiled model: called like the model; takes torch tensors or numpy arrays."""

    called = False
    agreement = MOST  # dB, with the reference, where quantization leaves less noise than that
    origin: tuple[Program, str, dict[str, Any]] | None = None  # what it was compiled from

    def __init__(self, signature: Signature) -> None:
        self.signature = signature

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Called like the model; returns the model's output structure, of torch tensors."""
        inputs = self.flatten(args, kwargs)
        warn_of_range(self, inputs)
        return self.signature.unflatten(self.run(inputs))

    def flatten(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[torch.Tensor]:
        """The inputs of a call as `run` takes them."""
        return self.signature.flatten(args, kwargs)

    # what code that evaluates a model asks of an nn.Module

    training = False

    def eval(self) -> Self:
        """Itself: a compiled model is always in eval mode."""
        return self

    def train(self, mode: bool = True) -> Self:
        """Itself, in eval mode; for code that restores the mode of a model."""
        return self

    def parameters(self, recurse: bool = True) -> Iterator[torch.Tensor]:
        """One empty tensor on the CPU: code asks `next(model.parameters())` for the device."""
        yield torch.empty(0)

    def to(self, device: torch.device | str | None = None, **_: Any) -> Self:
        """Itself, if the device is the CPU; else EngineError."""
        if device is not None and torch.device(device).type != "cpu":
            raise EngineError(f"a compiled model runs on the CPU, not on {device}")
        return self

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

    def __reduce__(self) -> Any:
        """A copy, or the model in another process, is compiled anew: kernels are not copied."""
        if self.origin is None:
            raise EngineError(
                f"a {type(self).__name__} that QuantizedModel.compile has not made cannot be "
                "copied or sent to another process"
            )
        program, name, options = self.origin
        return _compiled_again, (program, name, options)

    @property
    def _workers(self) -> ThreadPoolExecutor:
        return _threads(os.getpid())

    @abstractmethod
    def run(self, inputs: Sequence[torch.Tensor]) -> Sequence[Any]:
        """One inference on the flat tensors of a call."""

    def profile(self, inputs: Sequence[torch.Tensor], rounds: int) -> list[ProfiledOperator] | None:
        """The operators that a call on `inputs` executes, the most expensive first.

        Times are averaged over `rounds` calls. None if the engine does not time its operators.
        """
        return None

    def in_bfloat16(self) -> EngineModel:
        """The same model with its float operators in bfloat16: faster, and less exact.

        EngineError if the engine, or this CPU, does not compute in bfloat16.
        """
        raise EngineError("this engine does not compute in bfloat16")

    @property
    def in_pytorch(self) -> tuple[str, ...]:
        """Module path and name of each operator that PyTorch runs, since OpenVINO cannot."""
        return ()
