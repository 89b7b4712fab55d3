"""Capture: an nn.Module and example inputs become a flat graph of ATen operators.

The graph takes the tensors of a call in order and returns a flat tuple; `Signature` turns a call
into those tensors and the tuple back into what the model returned.
"""

import contextlib
import dataclasses
import functools
import inspect
import io
import keyword
import logging
import traceback
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import torch.utils._pytree as pytree
from torch import Tensor, fx, nn
from torch.export import Dim

from ..errors import CaptureError
from ..graph.verify import checkpoint
from .float_graph import FloatGraph
from .inplace import evaluate_writes, mutates_views
from .signature import Call, Signature, bound_arguments, input_form


def capture(
    model: nn.Module,
    args: tuple[Any, ...],
    kwargs: dict[str, Any] | None = None,
    others: Sequence[Call] = (),
) -> FloatGraph:
    """Export `model`, as it is in eval mode, to a flat graph of ATen operators.

    The first dimension of every tensor (the batch) is dynamic, and so are sizes that differ in
    `others`, more calls of the model, and the length of (batch, length) integers, unless the model
    fixes them. The model is left as it was. Raises CaptureError naming the line where torch.export
    stopped.

    >>> graph, signature = capture(nn.Linear(4, 2), (torch.rand(3, 4),))
    >>> graph(torch.rand(7, 4))[0].shape
    torch.Size([7, 2])
    """
    forward = inspect.signature(model.forward)
    arguments, call = bound_arguments(forward, args, kwargs or {})
    training = [m for m in model.modules() if m.training]
    try:
        for m in training:
            m.training = False
        more = [bound_arguments(forward, *other)[0] for other in others]
        program = _export(model, forward, arguments, more)
    finally:
        for m in training:
            m.training = True
    leaves, in_spec = pytree.tree_flatten(call)
    signature = Signature(
        tuple((p.name, int(p.kind)) for p in forward.parameters.values()),
        in_spec,
        program.call_spec.out_spec,
        tuple((i, leaf) for i, leaf in enumerate(leaves) if not isinstance(leaf, Tensor)),
        (),
    )
    constants = {i for i, _ in signature.constants}
    module = _flat_module(program, constants)
    evaluate_writes(module)
    if mutates_views(module.graph):
        module = _flat_module(program.run_decompositions({}), constants)
    values = [n.meta["val"] for n in module.graph.nodes if n.op == "placeholder"]
    signature = dataclasses.replace(signature, inputs=tuple(map(input_form, values)))
    checkpoint(module, "capture")
    return FloatGraph(module, signature)


def _export(
    model: nn.Module,
    forward: inspect.Signature,
    arguments: dict[str, Any],
    others: Sequence[dict[str, Any]],
):
    """torch.export with as many dynamic sizes as the model allows; see `capture`.

    A batch of 1 is doubled, since 1 would be specialised.
    """
    alike = [o for o in others if _structures(o) == _structures(arguments)]
    tensors = [t for t in pytree.tree_leaves(arguments) if isinstance(t, Tensor)]
    tokens = {t.shape[1] for t in tensors if t.dim() == 2 and not t.is_floating_point()} - {1}
    widest = pytree.tree_map(functools.partial(_free, tokens), arguments, *alike)
    batch = pytree.tree_map(_free_batch, arguments)
    doubled = pytree.tree_map_only(Tensor, _doubled, arguments)
    attempts = [(doubled, widest)] if widest != batch else []
    attempts += [(doubled, batch), (arguments, batch), (arguments, None)]
    first: Exception | None = None
    for values, shapes in attempts:
        bound = inspect.BoundArguments(forward, values)  # type: ignore[arg-type]
        try:
            with torch.no_grad(), quiet():
                return torch.export.export(
                    model, bound.args, bound.kwargs, dynamic_shapes=shapes, strict=False
                )
        except Exception as e:
            first = first or e
    assert first is not None
    raise CaptureError(_explain(model, first)) from first


def _doubled(t: Tensor) -> Tensor:
    return t.expand(2, *t.shape[1:]).clone() if t.dim() and t.shape[0] == 1 else t


def _structures(arguments: dict[str, Any]) -> Any:
    leaves, spec = pytree.tree_flatten(arguments)
    return spec, [leaf.dim() if isinstance(leaf, Tensor) else type(leaf) for leaf in leaves]


def _free_batch(leaf: Any) -> Any:
    return {0: Dim.AUTO} if isinstance(leaf, Tensor) and leaf.dim() else None


def _free(tokens: set[int], leaf: Any, *others: Any) -> Any:
    """Dynamic dimensions: the batch, those that differ, and the second if as long as token ids."""
    if not isinstance(leaf, Tensor) or not leaf.dim():
        return None
    differ = {d for o in others for d in range(leaf.dim()) if o.shape[d] != leaf.shape[d]}
    length = {1} if leaf.dim() > 1 and leaf.shape[1] in tokens else set()
    return dict.fromkeys({0} | differ | length, Dim.AUTO)


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
    own = [f for f in frames if not f.filename.startswith((torch_home, "<", __file__))]
    where = f"\n  stopped at {own[-1].filename}:{own[-1].lineno}: {own[-1].line}" if own else ""
    reason = str(error).strip().split("\n")[0]
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
