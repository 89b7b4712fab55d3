"""Calls in forward whose sizes torch.export would fix, in a form where they stay free."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode


class FreeSteps(TorchFunctionMode):
    """While tracing: `torch.linspace` whose number of steps is a size that is free.

    ATen's takes no symbolic number of steps, so the size that they count would be fixed.

    >>> with FreeSteps():
    ...     torch.linspace(0, 1, 3)
    tensor([0.0000, 0.5000, 1.0000])
    """

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        call = linspace if func is torch.linspace else func
        return call(*args, **kwargs or {})


def linspace(
    start: Any, end: Any, steps: Any, *, dtype: torch.dtype | None = None, **options: Any
) -> Tensor:
    """torch.linspace; for a symbolic number of steps in terms of torch.arange, without integers."""
    kind = dtype or torch.get_default_dtype()
    if not isinstance(steps, torch.SymInt) or not kind.is_floating_point or "out" in options:
        return torch.linspace(start, end, steps, dtype=dtype, **options)
    exact = torch.float64 if kind is torch.float64 else torch.float32  # half cannot count to 2049
    part = torch.arange(steps, dtype=exact, **options) / torch.sym_max(steps - 1, 1)
    return (start * (1 - part) + end * part).to(kind)
