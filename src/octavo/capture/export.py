"""Capture: an nn.Module and example inputs become a flat graph of ATen operators.

The graph takes the tensors of a call in order and returns a flat tuple; `Signature` turns a call
into those tensors and the tuple back into what the model returned.
"""

import contextlib
import dataclasses
import inspect
import io
import keyword
import logging
import re
import traceback
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import torch.utils._pytree as pytree
from torch import Tensor, fx, nn

from ..errors import CaptureError, DataError
from ..graph.verify import checkpoint
from .examples import values_of
from .float_graph import FloatGraph
from .free_sizes import Attempt, FreeSizes
from .images import images_of
from .inplace import evaluate_writes, mutates_views, refuse_state
from .look import Limits, second_look
from .results import plain_results
from .signature import Call, Signature, bound_arguments, input_form
from .traceable import traceable
from .unchanged import unchanged
from .widen import widened

UNKNOWN_RESULT = re.compile(r"Found <class '([^']+)'> in output, which is not a known type")
MOST_SHAPES = 4  # kept in the signature, to compare engines at


def capture(
    model: nn.Module,
    args: tuple[Any, ...],
    kwargs: dict[str, Any] | None = None,
    others: Sequence[Call] = (),
    free: FreeSizes | None = None,
) -> FloatGraph:
    """Export `model`, as it is in eval mode, to a flat graph of ATen operators.

    The first dimension of every tensor (the batch) is dynamic, and so are sizes that differ in
    `others`, more calls of the model, and the length of (batch, length) integers, unless the model
    fixes them, or `free` says something else. The graph is compared with the model, on the call and
    at other values of these sizes (see `look`); a size at which they differ is fixed, and
    `Signature.fixed` says why. The model is left as it was.

    Raises DataError if the model itself does not take the call, and CaptureError naming the line
    where torch.export stopped, a buffer that forward updates, or the first operator that computes
    something else than the model.

    >>> graph, signature = capture(nn.Linear(4, 2), (torch.rand(3, 4),))
    >>> graph(torch.rand(7, 4))[0].shape
    torch.Size([7, 2])
    """
    forward = inspect.signature(model.forward)
    bound = [bound_arguments(forward, *c) for c in ((args, kwargs or {}), *others)]
    tensors = [[t for t in pytree.tree_leaves(c) if isinstance(t, Tensor)] for _, c in bound]
    alike = [c for c in tensors if [t.dim() for t in c] == [t.dim() for t in tensors[0]]]
    free = free or FreeSizes()
    fixed: dict[tuple[int, int], str] = {}
    failed: CaptureError | None = None  # then the model is called once before it is traced
    while True:
        attempts = free.attempts([arguments for arguments, _ in bound], fixed)
        program = _export(model, forward, attempts, failed)
        module, signature = _graph(program, forward, bound[0][1])
        if specialised := _specialised(signature, alike, fixed):
            fixed |= specialised
            continue
        try:
            look = second_look(model, module, signature, alike, free.batch_dim)
        except CaptureError as e:
            if failed is not None:
                raise failed from e
            failed = e
            continue
        if not look.fixed:
            break
        fixed |= look.fixed
    limits = fixed | dict(look.not_one)
    signature = dataclasses.replace(
        signature,
        fixed=tuple((*place, limits[place]) for place in sorted(limits)),
        shapes=look.shapes[:MOST_SHAPES],
        values=tuple(map(values_of, zip(*alike, strict=True))),
        batch=look.batch,
        branches=(*look.branches, *free.bounds(bound[0][0])),
        images=tuple(images_of(model).items()),
    )
    checkpoint(module, "capture")
    graph = FloatGraph(*widened(*plain_results(module, signature)))
    free.check(bound[0][0], graph.signature.inputs, fixed)
    return graph


def _graph(
    program: Any, forward: inspect.Signature, call: Call
) -> tuple[fx.GraphModule, Signature]:
    """The exported program as a flat graph, and the signature of the call."""
    leaves, in_spec = pytree.tree_flatten(call)
    constants = tuple((i, leaf) for i, leaf in enumerate(leaves) if not isinstance(leaf, Tensor))
    positions = {i for i, _ in constants}
    module = _flat_module(program, positions)
    evaluate_writes(module)
    if mutates_views(module.graph):
        module = _flat_module(program.run_decompositions({}), positions)
    refuse_state(module.graph)
    values = [n.meta["val"] for n in module.graph.find_nodes(op="placeholder")]
    parameters = tuple((p.name, int(p.kind)) for p in forward.parameters.values())
    inputs = tuple(map(input_form, values))
    return module, Signature(parameters, in_spec, program.call_spec.out_spec, constants, inputs)


def _specialised(
    signature: Signature, calls: Sequence[Sequence[Tensor]], fixed: Limits
) -> dict[tuple[int, int], str]:
    """Sizes that tracing has fixed at a value that is not the data's, since 1 was doubled."""
    sizes = [(i, shape[0]) for i, (_, shape) in enumerate(signature.inputs) if shape]
    return {
        (i, 0): "forward depends on its value: it may loop over this dimension"
        for i, size in sizes
        if size == 2 and calls[0][i].shape[0] == 1 and (i, 0) not in fixed
    }


def _export(
    model: nn.Module,
    forward: inspect.Signature,
    attempts: Sequence[Attempt],
    failed: CaptureError | None,
):
    """torch.export with as many dynamic sizes as the model allows; see `capture`.

    What forward makes on its first call, a table or a mask, is made by a call before tracing if it
    cannot be made while tracing, or if that has `failed`.
    """
    arguments = attempts[-1][0]
    reason: Exception | None = failed
    if reason is None:
        try:
            return _first_export(model, forward, attempts)
        except Exception as first:
            reason = first
    with unchanged(model):
        bound = inspect.BoundArguments(forward, arguments)  # type: ignore[arg-type]
        try:
            with torch.no_grad():
                model(*bound.args, **bound.kwargs)
        except Exception as e:
            raise DataError(f"the model itself does not take this call: {e}") from e
        try:
            return _first_export(model, forward, attempts)
        except Exception:
            raise failed or CaptureError(_explain(model, reason)) from reason


def _first_export(model: nn.Module, forward: inspect.Signature, attempts: Sequence[Attempt]):
    """The first of the attempts, pairs of arguments and dynamic shapes, that torch.export takes."""
    first: Exception | None = None
    for values, shapes in attempts:
        bound = inspect.BoundArguments(forward, values)  # type: ignore[arg-type]
        try:
            with torch.no_grad(), quiet(), unchanged(model), traceable():
                return torch.export.export(
                    model, bound.args, bound.kwargs, dynamic_shapes=shapes, strict=False
                )
        except Exception as e:
            first = first or e
    assert first is not None
    raise first


@contextlib.contextmanager
def quiet():
    """Silence torch.export: it prints, logs and warns before it raises the same message."""
    previous = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with (
            contextlib.redirect_stdout(io.StringIO()),
            contextlib.redirect_stderr(io.StringIO()),
            warnings.catch_warnings(),
        ):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(previous)


def _explain(model: nn.Module, error: Exception) -> str:
    """What stopped torch.export and at which line of the user's code."""
    torch_home = str(Path(torch.__file__).parent)
    frames = traceback.extract_tb(error.__traceback__)
    ours = str(Path(__file__).parent)
    own = [f for f in frames if not f.filename.startswith((torch_home, "<", ours))]
    where = f"\n  stopped at {own[-1].filename}:{own[-1].lineno}: {own[-1].line}" if own else ""
    reason = str(error).strip().split("\n")[0]
    if kind := UNKNOWN_RESULT.search(str(error)):
        return (
            f"{type(model).__name__} returns a {kind[1]}, which PyTorch cannot take apart. "
            "Register a dataclass of yours: torch.export.register_dataclass(Kind, "
            'serialized_type_name="package.Kind"); for a language model\'s cache, call the model '
            "with use_cache=False, or set model.config.use_cache = False"
        )
    values = [v for f, _ in traceback.walk_tb(error.__traceback__) for v in f.f_locals.values()]
    if any(isinstance(v, nn.utils.rnn.PackedSequence) for v in values):
        return (
            f"{type(model).__name__} packs sequences, which torch.export cannot capture: call the "
            f"recurrent layer on the padded tensor instead{where}"
        )
    return (
        f"torch.export cannot capture {type(model).__name__}: {type(error).__name__}: {reason}"
        f"{where}\nOften this is control flow that depends on a tensor's values, or a call that "
        "leaves PyTorch (numpy, .item()): rewrite that line, or quantize the part of the model "
        "that does not hold it."
    )


def _flat_module(program: Any, constant_positions: set[int]) -> fx.GraphModule:
    """The exported program as a GraphModule of tensors in, flat tuple out."""
    try:
        module = program.module(check_guards=False)
    except SyntaxError as e:
        names = {part for path in program.state_dict for part in path.split(".")}
        odd = sorted(n for n in names if keyword.iskeyword(n) or set(n) & set('"\\\n'))
        raise CaptureError(
            f"PyTorch cannot write a graph with modules or parameters named {odd}, which Python "
            "cannot spell: rename them"
        ) from e
    module.graph.set_codegen(fx.graph.CodeGen())
    placeholders = [n for n in module.graph.nodes if n.op == "placeholder"]
    for i, node in enumerate(placeholders):
        if i in constant_positions:
            module.graph.erase_node(node)
    module = fx.GraphModule(module, module.graph)  # without torch.export's hooks on calls
    for name, tensor in (*module.named_parameters(), *module.named_buffers()):
        if tensor.is_floating_point() and tensor.isnan().any():
            raise CaptureError(f"parameter {name!r} holds NaN: load weights that are finite")
    return module
