"""Tidy: named rewrites that leave the function as it is and the graph simpler to match.

Each rewrite takes the captured GraphModule and changes it in place (it is Octavo's own: the
user's tensors are shared with it, so a rewrite adds new tensors and never writes to old ones).
"""

from collections.abc import Callable

from torch import fx

from .arguments import complete_arguments
from .attention import expand_attention
from .batch_norm import batch_norm_to_affine, fold_affine_forward, fold_batch_norm
from .canonicalize import one_spelling
from .constants import fold_constants
from .einsum import einsum_to_matmul
from .functional import functional
from .identity import remove_identities
from .inline import inline_regions
from .packed import split_packed_linears
from .windows import repeat_window_masks

REWRITES: tuple[Callable[[fx.GraphModule], None], ...] = (
    inline_regions,
    functional,
    expand_attention,
    einsum_to_matmul,
    complete_arguments,
    remove_identities,
    fold_batch_norm,
    batch_norm_to_affine,
    one_spelling,
    repeat_window_masks,
    fold_constants,
    fold_affine_forward,
    split_packed_linears,
)


def tidy(module: fx.GraphModule) -> fx.GraphModule:
    """Apply every rewrite in order, in place."""
    for rewrite in REWRITES:
        rewrite(module)
        module.graph.eliminate_dead_code()
    module.graph.lint()
    module.recompile()
    return module
