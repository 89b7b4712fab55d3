"""`quantize`: the stages in order. Read this first."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterable, Sequence
from typing import Any, overload

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from torch import Tensor, nn

from .calibrate.data import calls
from .capture.signature import Call
from .config import Config, as_config
from .errors import ConfigError, OctavoError
from .model import QuantizedModel
from .quantizer import Quantizer
from .search.fallback import Evaluate
from .stages import Calibration
from .submodules import QuantizedParts, quantize_parts


@overload
def quantize(
    model: nn.Module,
    data: Any,
    *,
    config: Config | str | None = ...,
    target_sqnr: float | None = ...,
    evaluate: Evaluate | None = ...,
    max_drop: float = ...,
    progress: bool = ...,
) -> QuantizedModel:
    """A whole model."""


@overload
def quantize(
    model: nn.Module,
    data: Any,
    *,
    submodules: Sequence[str],
    config: Config | str | None = ...,
    target_sqnr: float | None = ...,
    progress: bool = ...,
) -> QuantizedParts:
    """The named parts of one."""


@torch.no_grad()
def quantize(
    model: nn.Module,
    data: Any,
    *,
    submodules: Sequence[str] | None = None,
    config: Config | str | None = None,
    target_sqnr: float | None = None,
    evaluate: Evaluate | None = None,
    max_drop: float = 0.005,
    progress: bool = True,
) -> QuantizedModel | QuantizedParts:
    """An int8 model from a trained float one and a few hundred samples.

    >>> import octavo, torch
    >>> net = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.ReLU())
    >>> q = octavo.quantize(net, [torch.rand(4, 3, 16, 16) for _ in range(8)])
    >>> q(torch.rand(2, 3, 16, 16)).shape
    torch.Size([2, 8, 14, 14])

    model: any nn.Module that torch.export can capture. It is quantized as it is in eval mode,
        whatever mode it is in, and is never changed.
    data: what the model will see. A tensor is one batch; a tuple or dict is the positional or
        keyword inputs of one call; any other iterable, a DataLoader among them, gives such
        batches, each seen once. Inside an iterable, what is beyond the arguments the model
        takes (the labels of a DataLoader) is ignored.
        Calls may be of any batch size. Another size (a sequence's length) may differ from call
        to call if it does in the first two batches, or if it is the length of token ids.
    submodules: quantize only these, by path, each with the inputs it sees while the whole model
        runs: for models that torch.export cannot capture whole. Returns a `QuantizedParts`.
    config: a `Config`, or "fast" (ranges only), "balanced" (the default: also what costs little and
        helps accuracy) or "best" (the same on more samples).
    target_sqnr: in dB; keep float the few sites without which the output's SQNR reaches it.
    evaluate: a function of a model, called like yours, that returns a number, higher is better:
        keep float the few sites without which it falls by no more than `max_drop`. It should
        look at data that is not among the calibration data; it is called about ten times.
    progress: show a bar on a terminal during calibration.

    Activations become uint8 with one scale and zero_point per tensor, weights int8 with one
    scale per output channel; operators without a rule stay float and the report says why.
    Raises an OctavoError: DataError, CaptureError (the model cannot be exported) or ConfigError.
    """
    if not isinstance(model, nn.Module):
        raise OctavoError(f"quantize takes an nn.Module, not a {type(model).__name__}")
    config = as_config(config)
    if target_sqnr is not None:
        config = dataclasses.replace(config, target_sqnr=target_sqnr)
    batches = calls(data, model)
    if submodules is not None:
        if evaluate is not None:
            raise ConfigError("evaluate is for whole models: with submodules give target_sqnr")
        shown = _progress(batches, _length(data), progress)
        return quantize_parts(model, submodules, shown, config)
    first = list(itertools.islice(batches, 2))

    quantizer = Quantizer(model, config=config)
    quantizer.capture(*first)  # capture, tidy, match
    calibration = Calibration(quantizer)
    for call in _progress(itertools.chain(first, batches), _length(data), progress):
        calibration.observe(call)
    return calibration.finish(evaluate, max_drop)  # convert, tune, reach the goals, report


def _length(data: Any) -> int | None:
    if isinstance(data, Tensor | tuple | dict):
        return 1
    try:
        return len(data)
    except TypeError:
        return None


def _progress(batches: Iterable[Call], total: int | None, show: bool) -> Iterable[Call]:
    console = Console(stderr=True)
    columns = (TextColumn("calibrating"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    hidden = not (show and console.is_terminal)
    with Progress(*columns, console=console, transient=True, disable=hidden) as bar:
        yield from bar.track(batches, total=total)
