"""Engines run a quantized graph. Each is one function, entered by name.

An engine takes a QuantizedModel and options and returns a callable with the model's signature.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from ..errors import EngineError

if TYPE_CHECKING:
    from ..model import QuantizedModel

Engine = Callable[..., Callable[..., Any]]
ENGINES: dict[str, Engine] = {}


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


def compile_model(model: QuantizedModel, name: str, **options: Any) -> Callable[..., Any]:
    """The model made ready by the engine `name`; raises EngineError if there is none."""
    from . import onnx, openvino, reference, torch_int8  # noqa: F401  (they register themselves)

    if name not in ENGINES:
        raise EngineError(f"unknown engine {name!r}: choose one of {', '.join(sorted(ENGINES))}")
    engine = ENGINES[name]
    known = list(inspect.signature(engine).parameters)[1:]
    if unknown := [o for o in options if o not in known]:
        raise EngineError(
            f"engine {name!r} has no option {unknown[0]!r}; it takes: {', '.join(known) or 'none'}"
        )
    return engine(model, **options)
