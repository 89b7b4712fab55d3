"""Passes: named rewrites that simplify the graph without changing what it computes.

Each takes a module and changes its graph in place. `run_passes` hands them a copy of the captured
graph, which shares the user's tensors: a pass adds new tensors and never writes to old ones.
"""

from collections.abc import Callable

from torch import fx

from ..capture.float_graph import FloatGraph, copied
from ..graph.verify import checkpoint
from .arguments import complete_arguments
from .attention import expand_attention
from .batch_norm import batch_norm_to_affine, fold_affine_forward, fold_batch_norm
from .canonicalize import canonicalize
from .constants import fold_constants
from .einsum import einsum_to_matmul
from .identity import remove_identities
from .inline import inline_regions
from .inplace import remove_in_place
from .packed import split_packed_linears
from .windows import repeat_window_masks

PASSES: tuple[Callable[[fx.GraphModule], None], ...] = (
    inline_regions,
    remove_in_place,
    expand_attention,
    einsum_to_matmul,
    complete_arguments,
    remove_identities,
    fold_batch_norm,
    batch_norm_to_affine,
    canonicalize,
    repeat_window_masks,
    fold_constants,
    fold_affine_forward,
    split_packed_linears,
)


def run_passes(graph: FloatGraph) -> FloatGraph:
    """The graph after every pass, in order; `graph` itself is not changed."""
    result = copied(graph)
    for rewrite in PASSES:
        rewrite(result.module)
        result.graph.eliminate_dead_code()
    result.module.recompile()
    checkpoint(result.module, "passes")
    return result
