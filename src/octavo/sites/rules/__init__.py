"""The rules: one small class per operator family, registered by decorator.

An operator of a known kind needs no rule, only a row in the operator table: see `kinds.py`. For
any other, derive a class from `FloatOp`, `PassThrough`, `Weighted` or `Rule` in `base.py`;
`register_pattern` also registers rules from outside the package.
"""

from . import conv, elementwise, embedding, kinds, linear, matmul, recurrent, shape
from .base import Context, FloatOp, PassThrough, Rule, Weighted

__all__ = [
    "Context",
    "FloatOp",
    "PassThrough",
    "Rule",
    "Weighted",
    "conv",
    "elementwise",
    "embedding",
    "kinds",
    "linear",
    "matmul",
    "recurrent",
    "shape",
]
