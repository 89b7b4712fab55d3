"""Passes: named rewrites that simplify the graph without changing what it computes.

Each takes a module and changes its graph in place. `run_passes` hands them a copy of the captured
graph, which shares the user's tensors: a pass adds new tensors and never writes to old ones.
"""

from collections.abc import Callable

import torch
from torch import fx

from ..capture.examples import calls, first_and_last
from ..capture.float_graph import FloatGraph, copied
from ..capture.inplace import draws_random
from ..errors import ConversionError, OctavoError, one_line
from ..graph.compare import difference
from ..graph.verify import checkpoint
from .arguments import complete_arguments
from .attention import expand_attention
from .batch_norm import batch_norm_to_affine, fold_affine_forward, fold_batch_norm
from .before_cat import move_before_cat
from .canonicalize import canonicalize
from .constants import fold_constants
from .einsum import einsum_to_matmul
from .identity import remove_identities
from .inline import inline_regions
from .inplace import remove_in_place
from .layers import split_lstm_layers
from .packed import split_packed_linears
from .windows import repeat_window_masks

PASSES: tuple[Callable[[fx.GraphModule], None], ...] = (
    inline_regions,
    remove_in_place,
    expand_attention,
    einsum_to_matmul,
    complete_arguments,
    remove_identities,
    move_before_cat,
    fold_batch_norm,
    batch_norm_to_affine,
    canonicalize,
    repeat_window_masks,
    fold_constants,
    fold_affine_forward,
    split_packed_linears,
    split_lstm_layers,
)


REWRITTEN = 50.0  # dB: folded batch norms round differently


def run_passes(graph: FloatGraph) -> FloatGraph:
    """The graph after every pass, in order; `graph` itself is not changed.

    Raises ConversionError if a pass has changed what the graph computes, on a few examples.
    """
    result = copied(graph)
    for rewrite in PASSES:
        try:
            rewrite(result.module)
        except OctavoError:
            raise
        except Exception as e:
            raise ConversionError(
                f"simplifying the graph failed in {rewrite.__name__}: {type(e).__name__}: {e}. "
                "Check that the model runs as you mean it; if so, this is a fault of Octavo: "
                "please report the model"
            ) from e
        result.graph.eliminate_dead_code()
    result.module.recompile()
    checkpoint(result.module, "passes")
    if reason := _difference(graph, result):
        raise ConversionError(
            f"simplifying the graph has changed what it computes: {reason}. This is a fault of "
            "Octavo: please report the model"
        )
    return result


@torch.no_grad()
def _difference(before: FloatGraph, after: FloatGraph) -> str:
    """How the outputs differ, at the smallest and largest sizes known; an empty string if not."""
    if before.signature is None or draws_random(before.graph):
        return ""
    for inputs, expected in calls(first_and_last(before.signature.examples(())), before.module):
        try:
            reason = difference(expected, after.module(*inputs), REWRITTEN)
        except Exception as e:
            return f"it raises {one_line(e)}"
        if reason and not difference(expected, before.module(*inputs), REWRITTEN):
            return reason  # and not of an operator that reads beyond the ends of its input
    return ""
