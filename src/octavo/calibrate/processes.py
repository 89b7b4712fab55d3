"""The processes of a torch.distributed job: work on every rank, and exchange of results."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any, NamedTuple, TypeVar

import torch.distributed as dist

from ..errors import ConfigError, OctavoError

T = TypeVar("T")


class Ranks:
    """The processes of torch.distributed's default group; each waits `seconds` for the others."""

    def __init__(self, seconds: float) -> None:
        if not (dist.is_available() and dist.is_initialized()):
            raise ConfigError(
                "no process group: start with torchrun and call "
                'torch.distributed.init_process_group("gloo") first, or use octavo.quantize'
            )
        self.rank, self.count, self.seconds = dist.get_rank(), dist.get_world_size(), seconds
        self.group: Any = dist.new_group(backend="gloo", timeout=timedelta(seconds=seconds))

    def together(self, work: Callable[[], T]) -> list[T]:
        """Do `work` on this rank; returns the results of all. An error on one is raised on all."""
        own: Any
        failed: Exception | None = None
        try:
            own = work()
        except Exception as e:
            own, failed = _Failure(f"{type(e).__name__}: {e}"), e
        found: list[Any] = [None] * self.count
        try:
            dist.all_gather_object(found, own, group=self.group)
        except RuntimeError as e:
            raise failed or OctavoError(
                f"rank {self.rank} lost the others: one of {self.count} died, or did not answer "
                f"within timeout={self.seconds:g} s ({e})"
            ) from e
        if failed is not None:
            raise failed
        for rank, item in enumerate(found):
            if isinstance(item, _Failure):
                raise OctavoError(f"rank {rank} failed: {item.reason}")
        return found


class _Failure(NamedTuple):
    """Takes the place of a failed rank's result."""

    reason: str
