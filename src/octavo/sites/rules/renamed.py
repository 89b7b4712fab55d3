"""Names that rules had before 0.2: a class that uses one works, with a DeprecationWarning.

To be removed in 0.3.
"""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable
from typing import Any

# old name -> new name; methods keep their arguments but for `quantize`
RENAMED = {
    "wants": "quantized_inputs",
    "refuses": "unsupported_reason",
    "quantize": "emit",
    "lossless": "passthrough",
    "shares_range": "shares_qparams",
    "idle_reason": "undemanded_reason",
}


def accept_old_names(cls: type) -> None:
    """Define the new name in a rule class that has an old one, and warn."""
    for old, new in RENAMED.items():
        if old not in vars(cls) or new in vars(cls):
            continue
        warnings.warn(
            f"{cls.__qualname__}.{old} is called {new} now: rename it (see CHANGELOG.md)",
            DeprecationWarning,
            stacklevel=3,  # the class statement
        )
        value = vars(cls)[old]
        setattr(cls, new, _with_old_arguments(value) if old == "quantize" else value)


def _with_old_arguments(quantize: Callable[..., Any]) -> Callable[..., Any]:
    """A method `emit(emitter)` from a method `quantize(quantizer, node, load_arg)`."""

    @functools.wraps(quantize)
    def emit(self: Any, emitter: Any) -> Any:
        return quantize(self, emitter, self.root, emitter.load_arg)

    return emit
