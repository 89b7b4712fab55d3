"""Parts: quantize named submodules of a model that cannot be captured as a whole."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch.utils._pytree as pytree
from torch import Tensor, nn

from .capture.signature import Call
from .config import Config
from .errors import ConfigError, DataError, OctavoError, near_names
from .model import QuantizedModel
from .quantizer import Quantizer
from .report import Report
from .stages import Calibration


class QuantizedParts(nn.Module):
    """A copy of a model with some submodules quantized; called like the model.

    parts: path of each quantized submodule -> its QuantizedModel, which can be saved by itself.
    """

    def __init__(self, model: nn.Module, parts: Mapping[str, nn.Module]) -> None:
        super().__init__()
        for path, part in parts.items():
            parent, _, name = path.rpartition(".")
            setattr(model.get_submodule(parent), name, part)
        self.model, self.paths = model, tuple(parts)
        self.eval()

    @property
    def parts(self) -> dict[str, Any]:
        """The quantized submodules by path."""
        return {path: self.model.get_submodule(path) for path in self.paths}

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """As the model; its quantized parts run as they do alone."""
        return self.model(*args, **kwargs)

    def report(self) -> dict[str, Report]:
        """The report of each part by its path."""
        return {path: part.report() for path, part in self.parts.items()}

    def compile(self, engine: str = "openvino", **options: Any) -> QuantizedParts:  # type: ignore[override]
        """A copy whose parts are compiled; see `QuantizedModel.compile`."""
        compiled = {p: Compiled(part.compile(engine, **options)) for p, part in self.parts.items()}
        memo = {id(part): part for part in self.parts.values()}  # these are replaced, not copied
        return QuantizedParts(copy.deepcopy(self.model, memo), compiled)


class Compiled(nn.Module):
    """A compiled part in its place in a model."""

    def __init__(self, call: Callable[..., Any]) -> None:
        super().__init__()
        self.call = call

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """As the part."""
        return self.call(*args, **kwargs)


def quantize_parts(
    model: nn.Module, paths: Sequence[str], batches: Iterable[Call], config: Config
) -> QuantizedParts:
    """Quantize the submodules at `paths` with the inputs they see as the model runs.

    Raises ConfigError for a path that is not there or lies in another, DataError for a part
    that no batch reached.
    """
    if isinstance(paths, str) or not paths:
        raise ConfigError(f"submodules takes a list of paths, not {paths!r}")
    model = copy.deepcopy(model).eval()
    watchers = {path: _Watcher(path, _submodule(model, path, paths), config) for path in paths}
    for args, kwargs in batches:
        model(*args, **kwargs)
    return QuantizedParts(model, {path: watcher.finish() for path, watcher in watchers.items()})


def _submodule(model: nn.Module, path: str, paths: Sequence[str]) -> nn.Module:
    known = [name for name, _ in model.named_modules() if name]
    if path not in known:
        raise ConfigError(f"submodules: there is no {path!r}. {near_names(path, known)}")
    outer = [p for p in paths if path.startswith(f"{p}.")]
    if outer:
        raise ConfigError(f"submodules: {path!r} lies in {outer[0]!r}, which is listed as well")
    return model.get_submodule(path)


class _Watcher:
    """Calibrates one part with the calls that a hook on it sees."""

    def __init__(self, path: str, module: nn.Module, config: Config) -> None:
        self.path, self.module = path, module
        self.quantizer = Quantizer(module, config=config)
        self.calibration = Calibration(self.quantizer)
        self.waiting: list[Call] = []  # the first two calls, to see which sizes vary
        self.hook = module.register_forward_pre_hook(self.see, with_kwargs=True)

    def see(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Take one call of the part into account."""
        if hasattr(self.quantizer, "graph"):
            self.calibration.observe((args, kwargs))
            return
        self.waiting.append(pytree.tree_map_only(Tensor, Tensor.clone, (args, kwargs)))
        if len(self.waiting) == 2:
            self.start()

    def start(self) -> None:
        """Capture the part and observe the calls that waited for it."""
        self.hook.remove()  # capture calls the part as well
        try:
            self.quantizer.capture(*self.waiting)
        except OctavoError as e:
            raise type(e)(f"submodule {self.path!r}: {e}") from e
        self.hook = self.module.register_forward_pre_hook(self.see, with_kwargs=True)
        for call in self.waiting:
            self.calibration.observe(call)

    def finish(self) -> QuantizedModel:
        """The quantized part."""
        if not self.waiting:
            raise DataError(f"submodule {self.path!r} was not called by any calibration batch")
        if not hasattr(self.quantizer, "graph"):
            self.start()
        self.hook.remove()
        return self.calibration.finish()
