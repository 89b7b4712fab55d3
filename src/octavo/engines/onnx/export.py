"""A quantized graph as an ONNX file: traced once more for its shapes, translated, and checked."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import sympy
import torch
from torch import Tensor, fx, nn
from torch.export import Dim, ExportedProgram
from torch.utils._sympy.functions import Mod

from ...capture.export import quiet
from ...capture.signature import Signature
from ...errors import FormatError
from ...graph.names import describe, operator_name
from ..base import examples
from .dynamic import dynamic_linear
from .graph import to_qdq
from .traced import TRACED
from .translations import translations

OPSET = 21
MISSING = (
    "needs the packages onnx, onnxscript and onnxruntime: pip install onnx onnxscript onnxruntime"
)
CANNOT = "this model cannot be written as ONNX"
ADVICE = "octavo.export to .xml and compile('openvino') need no ONNX"


def to_onnx(module: fx.GraphModule, signature: Signature, path: Path) -> None:
    """Write a quantized graph as an ONNX file.

    Sizes that are free in the signature are free in the file. Raises FormatError if ONNX cannot
    represent the graph, naming the operator, or if a size would become fixed.
    """
    try:
        import onnx  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as e:
        raise FormatError(f"export to ONNX {MISSING}") from e
    rounded, first = to_qdq(module), None
    for inputs in examples(signature):
        try:
            return _write(rounded, signature, inputs, path)
        except FormatError as e:
            first = first or e
            if _is_untranslatable(e):  # whatever the sizes
                break
    assert first is not None
    raise first


def describe_file(
    path: Path, signature: Signature, facts: Mapping[str, str], of_nodes: Mapping[str, str]
) -> None:
    """Enter facts as metadata of an ONNX file, and those of the graph's nodes at its operators.

    Free sizes are named: "batch", or by their input, as "images_2". What torch.onnx has entered for
    each operator, with paths of this machine, is removed.
    """
    import onnx

    model = onnx.load(path)
    for node in model.graph.node:
        scopes = next((p.value for p in node.metadata_props if p.key.endswith("name_scopes")), "")
        names = re.findall(f"'{STEP}([^']*)'", scopes)
        del node.metadata_props[:]
        if names and names[0] in of_nodes and node.op_type != "Constant":
            node.metadata_props.add(key="octavo", value=of_nodes[names[0]])
    _name_sizes(model.graph, signature)
    onnx.helper.set_model_props(model, dict(facts))
    onnx.save(model, path)


def _name_sizes(graph: Any, signature: Signature) -> None:
    """Names for the symbols of sizes that tracing has made, such as "s21"."""
    names: dict[str, str] = {}
    batches = signature.batch or [None] * len(signature.inputs)
    for value, batch in zip(graph.input, batches, strict=True):
        for i, size in enumerate(value.type.tensor_type.shape.dim):
            if size.dim_param:
                name = "batch" if i == batch else f"{value.name}_{i}"
                names.setdefault(size.dim_param, name)
    for value in (*graph.input, *graph.output, *graph.value_info):
        for size in value.type.tensor_type.shape.dim:
            if size.dim_param:
                known = re.sub(r"\w+", lambda word: names.get(word[0], word[0]), size.dim_param)
                size.dim_param = known


def _write(
    module: fx.GraphModule, signature: Signature, inputs: tuple[Tensor, ...], path: Path
) -> None:
    """Write the graph, traced on these inputs."""
    import onnx

    names = [n.name for n in module.graph.nodes if n.op == "placeholder"]
    program = _trace(module, signature, inputs)
    _check_free(signature, names, program)
    try:
        with torch.no_grad(), quiet():
            written: Any = torch.onnx.export(
                program,
                f=path,
                opset_version=OPSET,
                input_names=names,
                custom_translation_table=translations(),
                external_data=False,
                optimize=False,
                verbose=False,
            )
            own = module.graph.find_nodes(op="call_function", target=dynamic_linear)
            onnx.checker.check_model(path, full_check=not own)  # it does not know MatMulNBits
    except Exception as e:
        raise FormatError(f"{CANNOT}: {_reason(e, module)}") from e
    _check_free(signature, names, written.exported_program)


# ---- tracing


STEP = "octavo:"  # before a node's name, in the name of the module that calls it


class _Step(nn.Module):
    """Calls one node's operator; torch.onnx keeps the names of modules, and not those of nodes."""

    def forward(self, call: Callable[[], Any]) -> Any:
        return call()


class _Traced(nn.Module):
    """The graph run node by node, so that the operators in TRACED are written in others."""

    def __init__(self, module: fx.GraphModule) -> None:
        super().__init__()
        self._buffers, self._parameters = module._buffers, module._parameters
        steps = {f"{STEP}{n.name}": _Step() for n in module.graph.nodes if n.op == "call_function"}
        self._modules, self.graph = module._modules | steps, module.graph

    def forward(self, *inputs: Tensor) -> Any:
        return _Tracer(self).run(*inputs)


class _Tracer(fx.Interpreter):
    def __init__(self, traced: _Traced) -> None:
        super().__init__(traced, graph=traced.graph)
        self.extra_traceback = False  # which would append to our messages

    def run_node(self, n: fx.Node) -> Any:
        run = partial(super().run_node, n)
        step = self.module._modules.get(f"{STEP}{n.name}")
        try:
            return run() if step is None else step(run)
        except Exception as e:
            reason = e if isinstance(e, FormatError) else f"{_line(e)}; {ADVICE}"
            raise FormatError(f"{CANNOT}: {describe(n)}: {reason}") from e

    def call_function(self, target: Any, args: Any, kwargs: Any) -> Any:
        return TRACED.get(target, target)(*args, **kwargs)


def _trace(
    module: fx.GraphModule, signature: Signature, inputs: tuple[Tensor, ...]
) -> ExportedProgram:
    """The graph with the shape of each value, as formulas of the sizes that are free.

    AUTO, unlike DYNAMIC, accepts relations between sizes, such as a width equal to the height; a
    size that becomes a number is found afterwards, in what was written.
    """
    free = tuple({i: Dim.AUTO for i, d in enumerate(s) if d is None} for _, s in signature.inputs)
    try:
        with torch.no_grad(), quiet():
            return torch.export.export(_Traced(module), inputs, dynamic_shapes=(free,))
    except FormatError:
        raise
    except Exception as e:
        raise FormatError(f"{CANNOT}: {_line(e)}; {ADVICE}") from e


def _check_free(signature: Signature, names: list[str], program: ExportedProgram) -> None:
    """Raise FormatError if tracing has fixed a size that the signature leaves free."""
    given = set(program.graph_signature.user_inputs)
    values = [n.meta["val"] for n in program.graph.nodes if n.name in given]
    for name, (_, shape), value in zip(names, signature.inputs, values, strict=True):
        for i, (want, have) in enumerate(zip(shape, value.shape, strict=True)):
            if want is None and (fault := _fixed_by(have)):
                raise FormatError(
                    f"{CANNOT} with size {i} of the input {name!r} free: an operator fixes "
                    f"{fault}; {ADVICE}, or quantize the model with data of one size"
                )


def _fixed_by(size: int | torch.SymInt) -> str:
    """What tracing made a number: a size itself, or one computed from it; "" for nothing.

    A size that is 0 or 1 in the example counts as that number from then on.
    """
    fixed = size if isinstance(size, int) else size.node.maybe_as_int()
    if fixed is not None:
        return f"it to {fixed}"
    symbols = size.node.expr.free_symbols
    for guard in size.node.shape_env.guards:
        e = guard.expr
        if not isinstance(e, sympy.Eq) or e.rhs not in (0, 1) or not e.free_symbols & symbols:
            continue
        if not e.lhs.has(Mod):  # of a size that must be a multiple of something
            return f"{e.lhs} to {e.rhs}"
    return ""


# ---- messages


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """An error, what it was raised from, and so on."""
    while error is not None:
        yield error
        error = error.__cause__


def _is_untranslatable(error: FormatError) -> bool:
    return any(type(e).__name__ == "DispatchError" for e in _causes(error))


def _line(error: BaseException) -> str:
    """The first line of an error, without colour codes and advice for PyTorch's developers."""
    text = re.sub(r"\x1b\[[0-9;]*m", "", str(error)).strip()
    line = next(iter(text.splitlines()), "")
    return f"{type(error).__name__}: {line}".rstrip(": ")


def _reason(error: Exception, module: fx.GraphModule) -> str:
    """One line that names the operator at which torch.onnx stopped, and what to do."""
    chain = list(_causes(error))
    found = [t for e in chain for t in re.findall(r"target=torch\.ops\.(\w+)\.(\w+)", str(e))]
    if not found:
        return f"{_line(chain[-1])}; {ADVICE}"
    namespace, name = found[0]
    node = next((n for n in module.graph.nodes if operator_name(n) == name), None)
    where = describe(node) if node is not None else f"the operator {namespace}::{name}"
    if any(type(e).__name__ == "DispatchError" for e in chain):
        return f"torch.onnx has no translation for {where}; {ADVICE}"
    return f"{where}: {_line(chain[-1])}; {ADVICE}"
