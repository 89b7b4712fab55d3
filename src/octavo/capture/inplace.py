"""In-place operators: which write to shared memory, and which can be evaluated at capture."""

import operator
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, fx
from torch._ops import OpOverload

from ..errors import CaptureError
from ..graph.names import describe, own_path
from ..graph.tensors import attribute, new_attribute

aten = torch.ops.aten

# These read only the type of their first argument; masks of shifted windows start like this.
FACTORIES = (aten.new_zeros.default, aten.new_ones.default, aten.new_full.default)


def mutates(node: fx.Node) -> bool:
    """Whether the node is an ATen operator that writes to one of its inputs."""
    return isinstance(node.target, OpOverload) and node.target._schema.is_mutable


def is_random(node: fx.Node) -> bool:
    """Whether the ATen operator returns another value each time.

    PyTorch marks dropout and recurrent layers as such, also when they are not in training.
    """
    overload: Any = node.target
    if torch.Tag.nondeterministic_seeded not in overload.tags:
        return False
    given = {a.name: a.default_value for a in overload._schema.arguments}
    given |= dict(zip(given, node.args, strict=False)) | node.kwargs
    trains = given.get("train", given.get("training", True))
    return trains is not False and given.get("dropout_p") != 0


def draws_random(graph: fx.Graph) -> bool:
    """Whether two runs of the graph differ, on the same inputs."""
    return any(isinstance(n.target, OpOverload) and is_random(n) for n in graph.nodes)


def mutates_views(graph: fx.Graph) -> bool:
    """Whether an in-place operator writes to a buffer, or to memory that another node reads later.

    Then replacing it by the operator that returns a new tensor (the pass `remove_in_place`) is
    not enough, and torch.export's own, slower, functionalization is needed.
    """
    for node in filter(mutates, graph.nodes):
        others = _aliases(node.args[0], node)
        if any(n.op == "get_attr" for n in (node.args[0], *others)):
            return True
        if any(user > node for n in others for user in n.users):
            return True
    return False


def refuse_state(graph: fx.Graph) -> None:
    """CaptureError if an operator writes to a tensor of the model: state would be lost or frozen.

    For graphs after `evaluate_writes`, and functionalized if `mutates_views`.
    """
    for node in filter(mutates, graph.nodes):
        target: Any = node.args[0]
        if target.op == "get_attr":
            raise CaptureError(
                f"forward writes to {target.target!r}, a tensor of the model ({describe(node)}): a "
                "quantized model keeps nothing from call to call, and other runtimes would freeze "
                "it. Make it an argument of forward, and return its new value: "
                "y, state = model(x, state)"
            )


def evaluate_writes(module: fx.GraphModule) -> None:
    """Evaluate writes to tensors that depend on no input and no parameter.

    Masks of shifted windows are made like this, slice by slice; they would otherwise require
    torch.export's functionalization of the whole graph. If other operators also write to such a
    tensor, or read it before it is complete, nothing is changed.
    """
    fixed = _fixed(module.graph)
    needed: set[fx.Node] = set()
    for node in filter(mutates, module.graph.nodes):
        shared = {node.args[0], *_aliases(node.args[0], node)}
        if node not in fixed:
            if shared & fixed:
                return
            continue
        needed |= _sources({node, *shared})
    order = [n for n in module.graph.nodes if n in needed]
    if not needed <= fixed or _read_unfinished(order):
        return
    values: dict[fx.Node, Any] = {}
    for node in order:
        values[node] = evaluated(module, node, values)
    for node in order:
        outside = [u for u in node.users if u not in needed]
        if outside and isinstance(values[node], Tensor):
            with module.graph.inserting_before(node):
                new = new_attribute(module, own_path("made", node.name), values[node].clone())
            new.meta = dict(node.meta)
            node.replace_all_uses_with(new, lambda user: user not in needed)
    for node in reversed(order):
        if not node.users:
            module.graph.erase_node(node)
    module.recompile()


def _fixed(graph: fx.Graph) -> set[fx.Node]:
    """The nodes that depend only on numbers."""
    found: set[fx.Node] = set()
    for node in graph.nodes:
        if not isinstance(node.target, OpOverload):
            continue
        inputs = node.all_input_nodes
        made = _is_made(node) and inputs == [node.args[0]]
        if not is_random(node) and (made or found.issuperset(inputs)):
            found.add(node)
    return found


def _read_unfinished(order: Sequence[fx.Node]) -> bool:
    """Whether any other node reads what one of these, which come in order, writes to later."""
    memory: dict[fx.Node, fx.Node] = {}  # the node that made it
    written: dict[fx.Node, fx.Node] = {}  # memory -> the last that writes to it
    for node in order:
        source: Any = node.args[0] if mutates(node) or _is_view(node) else node
        memory[node] = memory.get(source, node)
        if mutates(node):
            written[memory[node]] = node
    reads = ((user, memory[n]) for n in order for user in n.users if user not in memory)
    return any(made in written and user < written[made] for user, made in reads)


def _is_made(node: fx.Node) -> bool:
    """Whether a node creates a tensor from numbers in the code, or fills one with a number."""
    listed = node.target is aten.lift_fresh_copy.default and node.args[0].op == "get_attr"  # type: ignore[union-attr]
    return listed or node.target in FACTORIES


def _sources(nodes: set[fx.Node]) -> set[fx.Node]:
    """The nodes and all that they are made of, back to those that make tensors."""
    found, todo = set(nodes), list(nodes)
    while todo:
        node = todo.pop()
        inputs = [] if _is_made(node) else node.all_input_nodes
        todo += [n for n in inputs if n not in found]
        found.update(inputs)
    return found


def evaluated(module: fx.GraphModule, node: fx.Node, values: Mapping[fx.Node, Any]) -> Any:
    """The value of a node of tensors, factories and `values`."""

    def value(n: fx.Node) -> Any:
        if n in values:
            return values[n]
        if n.op == "get_attr":
            return attribute(module, n.target)
        like = n.meta["val"]  # of which a factory reads the type
        return torch.empty(0, dtype=like.dtype, device=like.device)

    with torch.no_grad():
        args, kwargs = fx.map_arg((node.args, node.kwargs), value)
        return node.target(*args, **kwargs)  # type: ignore[operator]


def _aliases(value: fx.Node, before: fx.Node) -> set[fx.Node]:
    """Other nodes that share memory with `value`, made before the node `before`."""
    found, todo = {value}, [value]
    while todo:
        node = todo.pop()
        near = [n for n in node.users if n < before and _is_view(n)]
        near += node.all_input_nodes[:1] if _is_view(node) else []
        todo += [n for n in near if n not in found]
        found.update(near)
    return found - {value}


def _is_view(node: fx.Node) -> bool:
    if node.target is operator.getitem:
        return True
    if not isinstance(node.target, OpOverload) or mutates(node):
        return False
    return any(r.alias_info is not None for r in node.target._schema.returns)
