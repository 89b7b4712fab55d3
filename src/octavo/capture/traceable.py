"""What torch.export would fix or refuse in forward, in a form that it traces."""

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any
from unittest import mock

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.fx.experimental.symbolic_shapes import statically_known_true
from torch.nn.modules import transformer
from torch.overrides import TorchFunctionMode

Pool = Callable[[Tensor], Tensor]
# of pools whose kernel is the whole image: dimensions, and the same without a kernel
OF_ALL: Mapping[Any, tuple[int, Pool]] = {
    torch.avg_pool1d: (1, lambda x: F.adaptive_avg_pool1d(x, 1)),
    F.avg_pool2d: (2, lambda x: F.adaptive_avg_pool2d(x, 1)),
    F.avg_pool3d: (3, lambda x: F.adaptive_avg_pool3d(x, 1)),
    F.max_pool1d: (1, lambda x: x.amax(-1, keepdim=True)),
    F.max_pool2d: (2, lambda x: x.amax((-2, -1), keepdim=True)),
    F.max_pool3d: (3, lambda x: x.amax((-3, -2, -1), keepdim=True)),
}


@contextlib.contextmanager
def traceable() -> Iterator[None]:
    """While tracing: what counts or spans a free size, and masks of `nn.TransformerEncoder`.

    `torch.linspace` and pools over a whole image take numbers only, so such a size would be fixed.

    The encoder looks at a mask's values to find whether it is causal. That is a hint for faster
    kernels; the mask is applied in any case.

    >>> with traceable():
    ...     torch.linspace(0, 1, 3)
    tensor([0.0000, 0.5000, 1.0000])
    """

    def hinted(mask: Any, is_causal: bool | None = None, size: int | None = None) -> bool:
        return bool(is_causal)

    with _FreeOfSizes(), mock.patch.object(transformer, "_detect_is_causal_mask", hinted):
        yield


class _FreeOfSizes(TorchFunctionMode):
    """Calls our `linspace` for torch's, and pools over everything without a kernel."""

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        if func is torch.linspace:
            return linspace(*args, **kwargs)
        if func in OF_ALL:
            dims, pool = OF_ALL[func]
            if _pools_all(dims, *args, **kwargs):
                return pool(args[0])
        return func(*args, **kwargs)


def _pools_all(
    dims: int,
    x: Any = None,
    kernel_size: Any = (),
    stride: Any = None,
    padding: Any = 0,
    *rest: Any,
    divisor_override: int | None = None,
    return_indices: bool = False,
    **options: Any,
) -> bool:
    """Whether the kernel is symbolic and the whole image; stride and dilation are then nothing."""
    sizes = kernel_size if isinstance(kernel_size, Sequence) else [kernel_size] * dims
    padded = any(padding) if isinstance(padding, Sequence) else padding
    more = return_indices or divisor_override or any(rest[2:])  # the third is either of the two
    return (
        isinstance(x, Tensor)
        and any(isinstance(k, torch.SymInt) for k in sizes)
        and len(sizes) == dims
        and not padded
        and not more
        and all(statically_known_true(k == n) for k, n in zip(sizes, x.shape[-dims:], strict=True))
    )


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
