"""Names of nodes and of the tensors made for them."""

import re
from collections.abc import Collection

from torch import fx, nn


def operator_name(node: fx.Node) -> str:
    """ "conv2d" for aten.conv2d.default, "getitem" for a function, a method's or module's name."""
    packet = getattr(node.target, "overloadpacket", node.target)
    return str(getattr(packet, "__name__", packet))


def describe(node: fx.Node) -> str:
    """A node for a message: its name, operator and module path."""
    path = module_path(node)
    where = f" in module {path!r}" if path else ""
    return f"node {node.name!r} ({operator_name(node)}){where}"


def module_stack(node: fx.Node) -> list[tuple[str, str]]:
    """Path and name of the type of each module a node is in, outermost first."""
    found = []
    for path, kind in (node.meta.get("nn_module_stack") or {}).values():
        name = kind if isinstance(kind, str) else kind.__name__
        found.append((path.split("@")[0].removeprefix("L['self']."), name.rpartition(".")[2]))
    return found


def module_path(node: fx.Node) -> str:
    """Dotted path of the module a node came from: "layer1.0.conv1", "" for the model itself."""
    for path, _ in reversed(module_stack(node)):
        return path
    return str(node.target) if node.op == "call_module" else ""


def full_name(node: fx.Node) -> str:
    """A node's name in an engine: "layer1.0.conv1/conv2d_1"."""
    return f"{module_path(node)}/{node.name}".strip("/")


def plain_path(path: str, taken: Collection[str]) -> str:
    """`path` in letters, digits and _, as files require, and different from those taken.

    >>> plain_path("stage.block1-0.weight", ()), plain_path("a/b", {"a_b"})
    ('stage.block1_0.weight', 'a_b_')
    """
    path = re.sub(r"[^A-Za-z0-9_.]", "_", path)
    while path in taken:
        path += "_"
    return path


def own_path(group: str, name: str, *rest: str) -> str:
    """A path for a tensor made for the node `name`, distinct from attributes of nn.Module.

    >>> own_path("ranges", "relu", "scale"), own_path("ranges", "to", "scale")
    ('ranges.relu.scale', 'ranges.to_.scale')
    """
    return ".".join((group, f"{name}_" if hasattr(nn.Module, name) else name, *rest))
