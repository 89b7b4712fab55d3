"""A newcomer's mistakes with models and data, each explained in one message.

`check_model` looks at the model before anything is done with it; `explain_call` at a call that the
float model itself refused.
"""

from __future__ import annotations

import os
import re
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy
from torch.utils.data import DataLoader, Dataset

from ..capture.arrays import kind_of
from ..capture.signature import Call, Signature
from ..errors import CaptureError, OctavoError, one_line
from .hints import Failure, hints

DATA = (Tensor, np.ndarray, list, tuple, DataLoader, Dataset)
# Modules of other quantizers. Those of torch.ao that are float (stubs, fused layers) are not here.
QUANTIZED = re.compile(
    r"torch\.(ao\.)?(nn|quantization)\b.*\b(quantized|qat|observer|fake_quantize)\b"
    r"|torchao\.|bitsandbytes\."
)
HOMES = (str(Path(torch.__file__).parent), str(Path(__file__).parents[1]), "<")  # not user's code


# ---- models


def check_model(model: Any) -> None:
    """Raise an OctavoError for what cannot be quantized, whatever the data.

    That is anything that is no nn.Module (a state dict, a class, a path, the data), a TorchScript
    or quantized model, and parameters that hold no values (lazy, or on the meta device).
    """
    if not isinstance(model, nn.Module):
        raise OctavoError(f"quantize takes an nn.Module, not {_no_module(model)}")
    modules = dict(model.named_modules())
    if isinstance(model, torch.jit.ScriptModule):
        raise CaptureError(
            "a TorchScript model (torch.jit.trace, script or load) cannot be captured: quantize "
            "the model it was made from"
        )
    for path, module in modules.items():
        if isinstance(module, torch.jit.RecursiveScriptModule):
            raise CaptureError(
                f"{path!r} is a TorchScript module, which cannot be captured: put the module that "
                "it was made from in its place"
            )
        if _is_quantized(module):
            where = f"its module {path!r} is" if path else "it is"
            raise CaptureError(
                f"the model is quantized already, or prepared for it: {where} of type "
                f"{type(module).__module__}.{type(module).__name__}. Quantize the float model"
            )
    _check_tensors(model)


def _is_quantized(module: nn.Module) -> bool:
    own = isinstance(getattr(module, "signature", None), Signature)  # Octavo's models
    return own or QUANTIZED.match(type(module).__module__) is not None


def _check_tensors(model: nn.Module) -> None:
    tensors: dict[str, Tensor] = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    if lazy := [name for name, t in tensors.items() if is_lazy(t)]:
        raise CaptureError(
            f"parameter {lazy[0]!r} of a lazy module has no shape yet: call the model once on a "
            "batch, train it or load its weights, and then quantize it"
        )
    if empty := [name for name, t in tensors.items() if t.is_meta]:
        raise CaptureError(
            f"{len(empty)} of the model's {len(tensors)} tensors are on the meta device and hold "
            f"no values, such as {empty[0]!r}: build the model on a real device, "
            "or model.to_empty(device='cpu'), and load its weights"
        )
    for name, t in tensors.items():
        if t.is_quantized or QUANTIZED.match(type(t).__module__):
            raise CaptureError(
                f"the model is quantized already: {name!r} is a {type(t).__name__} of dtype "
                f"{t.dtype}. Quantize the float model"
            )


def _no_module(value: Any) -> str:
    """What was given for a model, and what to give."""
    kind = kind_of(value)
    if isinstance(value, type):
        return f"the class {value.__name__}: pass a model, {value.__name__}(...), with its weights"
    if isinstance(value, Mapping):
        parts = [key for key, part in value.items() if isinstance(part, nn.Module)]
        if parts:
            return f"{kind}: pass the model in it, under {parts[0]!r}"
        return f"{kind}: if it is a state dict, build the model and load_state_dict it first"
    if isinstance(value, str | os.PathLike):
        return (
            f"{kind}, {str(value)!r}: build the model, and load the file's weights into it, "
            "model.load_state_dict(torch.load(path))"
        )
    if isinstance(value, DATA):
        return f"{kind}: the model comes first, then the data: quantize(model, data)"
    if isinstance(value, torch.export.ExportedProgram):
        return f"{kind}: pass the model that it was exported from"
    if isinstance(getattr(value, "model", None), nn.Module):
        return f"{kind}: pass the model in it, its attribute 'model'"
    hint = ""
    if callable(value):
        hint = ": call it, if it makes the model, or write an nn.Module whose forward calls it"
    return kind + hint


# ---- calls


def explain_call(model: nn.Module, call: Call, error: Exception) -> str:
    """Why a float model does not take a call, in PyTorch's words, and what to do about it.

    `error` is what the model, or a copy of it, raised. The hints come from comparing the call
    with the signature of `forward` and with the layer that raised; without one, the line is named.
    """
    failure = Failure.of(model, call, error)
    given = ", ".join(f"{name}: {_form(value)}" for name, value in failure.inputs.items())
    said = (
        "the model itself does not take the first batch of the calibration data: "
        f"{one_line(error)}. It was called with {given or 'nothing'}"
    )
    return ". ".join([said, *(hints(failure) or [_where(error)])])


def _form(value: Any) -> str:
    if isinstance(value, Tensor):
        return f"{str(value.dtype).removeprefix('torch.')} of shape {tuple(value.shape)}"
    if isinstance(value, Mapping):
        return f"a dict of {', '.join(map(str, value))}"
    if isinstance(value, list | tuple):
        inside = f" of {_form(value[0])}" if value and isinstance(value[0], Tensor) else ""
        return f"{kind_of(value)} of {len(value)}{', each' if inside else ''}{inside}"
    return repr(value)[:40]


def _where(error: Exception) -> str:
    """The line of the user's code that raised."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [f for f in frames if not f.filename.startswith(HOMES)]
    at = f", at {own[-1].filename}:{own[-1].lineno}: {own[-1].line}" if own else ""
    return f"Call the model on this batch yourself{at}"
