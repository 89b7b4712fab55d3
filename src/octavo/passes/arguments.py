"""Make all arguments positional, defaults included, so that rules can read `node.args[i]`."""

from torch import fx
from torch._ops import OpOverload


def complete_arguments(module: fx.GraphModule) -> None:
    """conv2d(x, w, stride=[2, 2]) -> conv2d(x, w, None, [2, 2], [0, 0], [1, 1], 1)."""
    for node in module.graph.nodes:
        if isinstance(node.target, OpOverload):
            args, kwargs = list(node.args), dict(node.kwargs)
            for i, a in enumerate(node.target._schema.arguments):
                if a.kwarg_only or i < len(args):
                    continue
                args.append(kwargs.pop(a.name, _default(a)))
            node.args, node.kwargs = tuple(args), kwargs


def _default(argument):
    value, kind = argument.default_value, str(argument.type)
    if kind.startswith("List") and isinstance(value, int):
        return [value] * (argument.N or 1)
    return value
