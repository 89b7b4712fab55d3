"""The calls that submodules of a model see while the whole model runs on the data."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import torch.utils._pytree as pytree
from torch import Tensor, nn

from ..errors import ConfigError, near_names
from .signature import Call


class SubmoduleCalls:
    """Runs a model batch by batch and queues the calls of some of its submodules.

    The model must be the caller's own copy: it gets hooks, which `close` removes.
    Raises ConfigError for a path that does not exist or that lies inside another.
    """

    def __init__(self, model: nn.Module, paths: Sequence[str], batches: Iterable[Call]) -> None:
        if isinstance(paths, str) or not paths:
            raise ConfigError(f"submodules takes a list of paths, not {paths!r}")
        self.model, self.batches = model, iter(batches)
        self.modules = {path: _submodule(model, path, paths) for path in paths}
        self.queues: dict[str, deque[Call]] = {path: deque() for path in paths}
        self.running = False  # capture calls the submodules as well: those calls do not count
        self.hooks = [self._hook(path, module) for path, module in self.modules.items()]

    def _hook(self, path: str, module: nn.Module) -> Any:
        def see(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            if self.running:
                # copies, since the model may write to its tensors later
                call = pytree.tree_map_only(Tensor, Tensor.clone, (args, kwargs))
                self.queues[path].append(call)

        return module.register_forward_pre_hook(see, with_kwargs=True)

    def calls(self, path: str) -> Iterator[Call]:
        """The calls of one submodule, running the model when none is queued."""
        queue = self.queues[path]
        while queue or self.run_batch():
            if queue:
                yield queue.popleft()

    def queued(self, path: str) -> Iterator[Call]:
        """The calls of one submodule that are queued now."""
        queue = self.queues[path]
        while queue:
            yield queue.popleft()

    def run_batch(self) -> bool:
        """Run the model on its next batch; False if there is none."""
        batch = next(self.batches, None)
        if batch is None:
            return False
        args, kwargs = batch
        self.running = True
        try:
            self.model(*args, **kwargs)
        finally:
            self.running = False
        return True

    def close(self) -> None:
        """Remove the hooks."""
        for hook in self.hooks:
            hook.remove()


def _submodule(model: nn.Module, path: str, paths: Sequence[str]) -> nn.Module:
    known = [name for name, _ in model.named_modules() if name]
    if path not in known:
        raise ConfigError(f"submodules: there is no {path!r}. {near_names(path, known)}")
    outer = [p for p in paths if path.startswith(f"{p}.")]
    if outer:
        raise ConfigError(f"submodules: {path!r} lies in {outer[0]!r}, which is listed as well")
    return model.get_submodule(path)
