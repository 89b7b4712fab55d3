"""One safe file: safetensors, with the graph as JSON in its metadata.

Nothing in a file is ever executed or imported: the loader builds only operators of a fixed set,
with arguments of a few plain types, and rejects everything else.
"""

from __future__ import annotations

import copyreg
import itertools
import json
import os
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load as from_bytes
from safetensors.torch import save as to_bytes
from safetensors.torch import save_file
from torch import fx, nn

from ..atomic import write_atomically
from ..capture.results import plain_results
from ..config import Config
from ..errors import FormatError
from ..graph.tensors import set_buffer
from ..model import QuantizedModel
from ..report import Report
from .checks import LARGEST_METADATA, PATH, checked, parsed
from .graph_json import graph_from_json, graph_to_json
from .structure import is_plain, signature_from_json, signature_to_json

# 2 adds graphs inside the graph, named tuples and dataclasses; a file without them is of format 1.
FORMATS = (1, 2)


def save(model: QuantizedModel, path: str | os.PathLike[str], *, histograms: bool = False) -> None:
    """Write `model` to one file that `load` reads; int8 weights take one byte each.

    The file is written under a temporary name and renamed when complete, so that an interrupted
    call leaves an existing file intact. Raises FormatError for a graph that a file cannot hold.

    histograms: keep those of the report as well, for `Report.html`; some kB for each site.

    >>> import octavo, tempfile, os
    >>> q = octavo.quantize(nn.Linear(4, 2), torch.rand(8, 4))
    >>> octavo.save(q, os.path.join(tempfile.mkdtemp(), "linear.octavo"))
    """
    if not isinstance(model, QuantizedModel):
        raise FormatError(f"save takes an octavo.QuantizedModel, not a {type(model).__name__}")
    tensors, metadata = contents(model, histograms)
    write_atomically(path, lambda temporary: save_file(tensors, temporary, metadata))


def contents(
    model: QuantizedModel, histograms: bool
) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """What a file holds: tensors by path, on the CPU, and texts by name; FormatError as `save`."""
    graph, signature = graph_to_json(model.graph), signature_to_json(model.signature)
    plain = all(is_plain(signature[key]) for key in ("in_spec", "out_spec"))
    is_first = plain and "images" not in signature and not any("graph" in item for item in graph)
    metadata = {
        "octavo": json.dumps({"format": 1 if is_first else 2, "torch": torch.__version__}),
        "graph": json.dumps(graph),
        "signature": json.dumps(signature),
        "config": model.config.to_json(),
        "report": json.dumps(model.report().to_dict(histograms)),
    }
    if sum(map(len, metadata.values())) > LARGEST_METADATA:
        raise FormatError("the model's graph is larger than a file may hold: save parts of it")
    module = model.graph_module
    own = module.named_buffers(remove_duplicate=False)
    inner = module.named_parameters(remove_duplicate=False)  # graphs in the graph have some
    # copies, since safetensors takes no tensors that share memory
    form = torch.contiguous_format
    tensors = {
        checked(PATH, name): t.detach().cpu().clone(memory_format=form)
        for name, t in itertools.chain(own, inner)
    }
    return tensors, metadata


def load(path: str | os.PathLike[str], device: str | torch.device = "cpu") -> QuantizedModel:
    """Read a model that `save` wrote; safe for files from anywhere.

    Raises FormatError for a file that is missing, damaged, of another format, or that holds an
    operator or a type the loader does not allow.
    """
    try:
        with safe_open(path, framework="pt") as f:
            names = f.keys()
            return from_contents({name: f.get_tensor(name) for name in names}, f.metadata(), device)
    except FormatError as e:
        raise FormatError(f"{path}: {e}") from e
    except SafetensorError as e:
        raise FormatError(
            f"{path} is not an Octavo file, which octavo.save and octavo quantize write, or it is "
            f"damaged: {e}"
        ) from e
    except OSError as e:
        raise FormatError(f"cannot read {path}: {e.strerror or 'there is no such file'}") from e
    except Exception as e:
        raise FormatError(f"{path} is damaged: {type(e).__name__}: {e}") from e


def from_contents(
    tensors: dict[str, torch.Tensor],
    metadata: dict[str, str] | None,
    device: str | torch.device = "cpu",
) -> QuantizedModel:
    """The inverse of `contents`; FormatError for what a file may not hold."""
    metadata = metadata or {}
    if sum(map(len, metadata.values())) > LARGEST_METADATA:
        raise FormatError("it holds more metadata than any model needs")
    _check_format(metadata)
    root = nn.Module()
    for name, tensor in tensors.items():
        set_buffer(root, checked(PATH, name), tensor)
    graph = graph_from_json(parsed(metadata["graph"]), root)
    module = fx.GraphModule(root, graph)
    signature = signature_from_json(parsed(metadata["signature"]))
    if len(signature.inputs) != len(graph.find_nodes(op="placeholder")):
        raise FormatError("its graph has other inputs than its signature")
    module, signature = plain_results(module, signature)
    config = Config.from_json(metadata["config"])
    report = Report.from_dict(parsed(metadata["report"]))
    return QuantizedModel(module, signature, config, report).to(device)


def _check_format(metadata: dict[str, str]) -> None:
    about = parsed(metadata.get("octavo", "{}"))
    if "format" not in about:
        raise FormatError("it is not an Octavo file")
    if about["format"] not in FORMATS:
        raise FormatError(
            f"it is of format {str(about['format'])[:20]}; this version of Octavo reads formats "
            f"{FORMATS[0]} to {FORMATS[-1]}: install a newer one"
        )


# ---- pickle


def _reduce(model: QuantizedModel) -> Any:
    """For other processes: PyTorch pickles a graph as code, which loses names and paths.

    As bytes, since tensors would be sent as open files, of which a process has some hundred. A
    model that a file cannot hold is pickled in PyTorch's way.
    """
    try:
        tensors, metadata = contents(model, histograms=True)
    except FormatError:
        return object.__reduce_ex__(model, 2)
    device = next((str(b.device) for b in model.buffers()), "cpu")
    return _from_bytes, (to_bytes(tensors), metadata, device)


def _from_bytes(tensors: bytes, metadata: dict[str, str], device: str) -> QuantizedModel:
    return from_contents(from_bytes(tensors), metadata, device)


copyreg.pickle(QuantizedModel, _reduce)  # type: ignore[arg-type]
