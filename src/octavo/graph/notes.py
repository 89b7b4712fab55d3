"""Notes of a pass on a node, for later stages: keys of `node.meta` beside torch.export's.

They are copied with the node, as the shapes of torch.export are.
"""

from torch import Tensor, fx

_FOLDED = "octavo_batch_norm_folded"
_TRAINED = "octavo_trained_statistics"
_REASON = "octavo_float_reason"


def note_folded_batch_norm(layer: fx.Node, mean: Tensor, deviation: Tensor) -> None:
    """A batch norm was folded into `layer`; its output had these statistics in training."""
    layer.meta[_FOLDED] = True
    layer.meta[_TRAINED] = (mean, deviation)


def has_folded_batch_norm(node: fx.Node) -> bool:
    """Whether a batch norm was folded into the node: patterns still match it."""
    return bool(node.meta.get(_FOLDED))


def trained_statistics(node: fx.Node) -> tuple[Tensor, Tensor] | None:
    """Mean and standard deviation of each output channel in training, from a folded batch norm."""
    found: tuple[Tensor, Tensor] | None = node.meta.get(_TRAINED)
    return found


def note_float_reason(node: fx.Node, reason: str) -> None:
    """Why a node that Octavo itself added has no integer form."""
    node.meta[_REASON] = reason


def float_reason(node: fx.Node) -> str:
    """The reason noted; an empty string for none."""
    return str(node.meta.get(_REASON, ""))
