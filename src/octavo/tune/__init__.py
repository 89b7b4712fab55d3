"""Tune: methods that make the int8 model more accurate without touching what it computes in float.

Each is a function of a `Quantizer` and works alone; `steps.py` applies those that `Config` names.
"""

from .bias import correct_biases
from .steps import Converted, convert_tuned

__all__ = ["Converted", "convert_tuned", "correct_biases"]
