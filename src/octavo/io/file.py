"""One safe file: safetensors, with the graph as JSON in its metadata.

Nothing in a file is ever executed or imported: the loader builds only operators of a fixed set,
with arguments of a few plain types, and rejects everything else.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import fx, nn

from ..capture.signature import Signature
from ..config import Config
from ..errors import FormatError, OctavoError
from ..graph.tensors import set_buffer
from ..model import QuantizedModel
from ..report import Report
from .checks import LARGEST_METADATA, PATH, check_scales, check_structure, checked, parsed
from .graph_json import graph_from_json, graph_to_json

FORMAT = 1


def save(model: QuantizedModel, path: str | os.PathLike[str]) -> None:
    """Write `model` to one file that `load` reads; int8 weights take one byte each.

    The file is written under a temporary name and renamed when complete, so that an interrupted
    call leaves an existing file intact. Raises FormatError for a graph that a file cannot hold.

    >>> import octavo, tempfile, os
    >>> q = octavo.quantize(nn.Linear(4, 2), torch.rand(8, 4))
    >>> octavo.save(q, os.path.join(tempfile.mkdtemp(), "linear.octavo"))
    """
    if not isinstance(model, QuantizedModel):
        raise FormatError(f"save takes an octavo.QuantizedModel, not a {type(model).__name__}")
    try:
        signature = model.signature.to_json()
    except OctavoError as e:
        raise FormatError(str(e)) from e
    check_structure(signature["in_spec"])
    check_structure(signature["out_spec"])
    metadata = {
        "octavo": json.dumps({"format": FORMAT, "torch": torch.__version__}),
        "graph": json.dumps(graph_to_json(model.graph)),
        "signature": json.dumps(signature),
        "config": model.config.to_json(),
        "report": json.dumps(model.report().to_dict()),
    }
    if sum(map(len, metadata.values())) > LARGEST_METADATA:
        raise FormatError("the model's graph is larger than a file may hold: save parts of it")
    buffers = model.graph_module.named_buffers(remove_duplicate=False)
    # copies, since safetensors takes no tensors that share memory
    form = torch.contiguous_format
    tensors = {checked(PATH, n): t.detach().cpu().clone(memory_format=form) for n, t in buffers}
    write_atomically(path, lambda temporary: save_file(tensors, temporary, metadata))


def write_atomically(path: str | os.PathLike[str], write: Callable[[str], Any]) -> None:
    """Call write(temporary path) and move the result to `path`, all or nothing."""
    target = Path(path)
    if not target.parent.is_dir():
        raise FormatError(f"cannot write {target}: there is no folder {target.parent}")
    handle, temporary = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
    os.close(handle)
    try:
        write(temporary)
        with open(temporary, "rb") as f:
            os.fsync(f.fileno())
        umask = os.umask(0)
        os.umask(umask)
        os.chmod(temporary, 0o666 & ~umask)
        os.replace(temporary, target)
    except BaseException:
        os.unlink(temporary)
        raise
    _sync_folder(target.parent)


def _sync_folder(folder: Path) -> None:
    """Make a rename in a folder survive a power failure, where the system supports it."""
    if hasattr(os, "O_DIRECTORY"):
        handle = os.open(folder, os.O_DIRECTORY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def load(path: str | os.PathLike[str], device: str | torch.device = "cpu") -> QuantizedModel:
    """Read a model that `save` wrote; safe for files from anywhere.

    Raises FormatError for a file that is missing, damaged, of another format, or that holds an
    operator or a type the loader does not allow.
    """
    try:
        with safe_open(path, framework="pt") as f:
            metadata = f.metadata() or {}
            if sum(map(len, metadata.values())) > LARGEST_METADATA:
                raise FormatError("it holds more metadata than any model needs")
            _check_format(metadata)
            root = nn.Module()
            for name in f.keys():  # noqa: SIM118  (not a dict)
                set_buffer(root, checked(PATH, name), f.get_tensor(name))
        tensors = dict(root.named_buffers())
        graph = graph_from_json(parsed(metadata["graph"]), tensors)
        check_scales(graph, tensors)
        module = fx.GraphModule(root, graph)
        structure = parsed(metadata["signature"])
        check_structure(structure["in_spec"])
        check_structure(structure["out_spec"])
        signature = Signature.from_json(structure)
        if len(signature.inputs) != len(graph.find_nodes(op="placeholder")):
            raise FormatError("its graph has other inputs than its signature")
        config = Config.from_json(metadata["config"])
        report = Report.from_dict(parsed(metadata["report"]))
    except FormatError as e:
        raise FormatError(f"{path}: {e}") from e
    except (SafetensorError, OSError) as e:
        raise FormatError(f"cannot read {path}: {e}") from e
    except Exception as e:
        raise FormatError(f"{path} is damaged: {type(e).__name__}: {e}") from e
    return QuantizedModel(module, signature, config, report).to(device)


def _check_format(metadata: dict[str, str]) -> None:
    about = parsed(metadata.get("octavo", "{}"))
    if "format" not in about:
        raise FormatError("it is not an Octavo file")
    if about["format"] != FORMAT:
        raise FormatError(
            f"it is of format {str(about['format'])[:20]}; this version of Octavo reads format "
            f"{FORMAT}: install a newer one"
        )
