"""The rules: one small class per operator family, entered in the pattern table by decorator.

An operator of a known kind needs no rule, only a row in the operator table: see `kinds.py`. For
any other, `FloatOp`, `PassThrough` and `Weighted` in `base.py` are what a rule can be, and
`register_pattern` adds one from outside the package as well.
"""

from . import conv, elementwise, kinds, linear, matmul, shape
from .base import Context, FloatOp, PassThrough, Rule, Weighted

__all__ = [
    "Context",
    "FloatOp",
    "PassThrough",
    "Rule",
    "Weighted",
    "conv",
    "elementwise",
    "kinds",
    "linear",
    "matmul",
    "shape",
]
