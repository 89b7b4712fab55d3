"""Models by name, for the command line."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import nn

from ..calibrate.mistakes import check_model
from ..errors import OctavoError, near_names

PRETRAINED = Path("pretrained")  # in place of a file of weights


class SourceError(OctavoError):
    """A model or weights file named on the command line cannot be loaded."""


def load_model(spec: str, weights: Path | None = None) -> nn.Module:
    """The model `spec` names, in eval mode, with `weights` loaded into it.

    spec: "package.module:callable", "file.py:callable", "torchvision:NAME", "timm:NAME" or
        "transformers:NAME"; the callable takes no arguments and returns the model, or is the model.
        timm and transformers also take a local folder, with its weights.
    weights: .safetensors, or a .pth / .pt state dict (read with weights_only=True); PRETRAINED for
        those that torchvision or timm download.
    """
    source, _, name = spec.rpartition(":")
    if not source or not name:
        raise SourceError(
            f"MODEL is {spec!r}: write package.module:callable, file.py:callable, "
            "torchvision:NAME, timm:NAME or transformers:NAME"
        )
    torch.manual_seed(0)  # random weights are at least the same each time
    try:
        model = _make(source, name, weights == PRETRAINED)
    except OctavoError:
        raise
    except Exception as e:
        raise SourceError(f"cannot make model {spec!r}: {type(e).__name__}: {e}") from e
    if not isinstance(model, nn.Module):
        raise SourceError(f"{spec!r} gave a {type(model).__name__}, not an nn.Module")
    check_model(model)
    if weights not in (None, PRETRAINED):
        _load_weights(model, weights)
    return model.eval()


def note_on_weights(spec: str) -> str:
    """What to know of the weights of the model that `spec` names, if no others are loaded."""
    source, _, name = spec.partition(":")
    if source == "transformers" or Path(name).is_dir():
        return ""
    if source in ("torchvision", "timm"):
        return "no --weights, so the weights are random: good for timing alone"
    return f"no --weights: the model has those that {source} gives it"


def _make(source: str, name: str, pretrained: bool) -> Any:
    if source == "torchvision":
        models = _import("torchvision").models
        return models.get_model(name, weights="DEFAULT" if pretrained else None)
    if source == "timm":
        local = Path(name).is_dir()
        made = f"local-dir:{name}" if local else name
        return _import("timm").create_model(made, pretrained=pretrained or local)
    if source == "transformers":
        return _make_transformer(name)
    if pretrained:
        raise SourceError(
            f"--weights pretrained is for torchvision:NAME and timm:NAME, not for {source}:{name}"
        )
    module = _load_file(Path(source)) if source.endswith(".py") else _import(source)
    if not hasattr(module, name):
        raise SourceError(f"{source} has no {name!r}. {near_names(name, dir(module))}")
    made = getattr(module, name)
    return made if isinstance(made, nn.Module) else made()


def _make_transformer(name: str) -> Any:
    """A model of the class that its config names: with its head, not the bare encoder."""
    transformers = _import("transformers")
    kinds = transformers.AutoConfig.from_pretrained(name).architectures or ["AutoModel"]
    return getattr(transformers, kinds[0], transformers.AutoModel).from_pretrained(name)


def _import(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as e:
        hint = (
            f"Did you mean {name}.py:...?" if Path(f"{name}.py").is_file() else "Is it installed?"
        )
        raise SourceError(f"cannot import {name!r}: {e}. {hint}") from e


def _load_file(path: Path) -> Any:
    if not path.is_file():
        raise SourceError(f"there is no file {path}")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.path.insert(0, str(path.parent))  # the file may import its neighbours
    try:
        spec.loader.exec_module(module)
    finally:
        sys.path.remove(str(path.parent))
    return module


def _load_weights(model: nn.Module, path: Path) -> None:
    try:
        if path.suffix == ".safetensors":
            state = load_file(path)
        else:
            state = torch.load(path, map_location="cpu", weights_only=True)
            state = state.get("state_dict", state.get("model", state))
        model.load_state_dict(state)
    except Exception as e:
        reason = " ".join(str(e).split())[:300]
        raise SourceError(f"cannot load weights {path}: {reason}") from e
