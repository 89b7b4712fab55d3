"""What torch.export would fix or refuse in forward, in a form that it traces."""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any
from unittest import mock

import torch
from torch import Tensor
from torch.nn.modules import transformer
from torch.overrides import TorchFunctionMode


@contextlib.contextmanager
def traceable() -> Iterator[None]:
    """While tracing: `torch.linspace` over a free size, and masks of `nn.TransformerEncoder`.

    The encoder looks at a mask's values to find whether it is causal. That is a hint for faster
    kernels; the mask is applied in any case.

    >>> with traceable():
    ...     torch.linspace(0, 1, 3)
    tensor([0.0000, 0.5000, 1.0000])
    """

    def hinted(mask: Any, is_causal: bool | None = None, size: int | None = None) -> bool:
        return bool(is_causal)

    with _FreeSteps(), mock.patch.object(transformer, "_detect_is_causal_mask", hinted):
        yield


class _FreeSteps(TorchFunctionMode):
    """Calls our `linspace` for torch's."""

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
    """torch.linspace; for a symbolic number of steps in terms of torch.arange, without integers.

    ATen's takes no symbolic number, so the size that it counts would be fixed.
    """
    kind = dtype or torch.get_default_dtype()
    if not isinstance(steps, torch.SymInt) or not kind.is_floating_point or "out" in options:
        return torch.linspace(start, end, steps, dtype=dtype, **options)
    exact = torch.float64 if kind is torch.float64 else torch.float32  # half cannot count to 2049
    part = torch.arange(steps, dtype=exact, **options) / torch.sym_max(steps - 1, 1)
    return (start * (1 - part) + end * part).to(kind)
