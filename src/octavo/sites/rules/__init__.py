"""The rules: one small class per operator family, entered in the pattern table by decorator.

A new operator is one decorated class. See `FloatBetween`, `PassThrough`, `Weighted` in `base.py`
for what a rule can be, and `register_pattern` for how to add one from outside the package.
"""

from . import activation, conv, elementwise, linear, matmul, pool, shape
from .base import FloatBetween, PassThrough, Rule, Weighted
from .conv import Conv

__all__ = [
    "Conv",
    "FloatBetween",
    "PassThrough",
    "Rule",
    "Weighted",
    "activation",
    "conv",
    "elementwise",
    "linear",
    "matmul",
    "pool",
    "shape",
]
