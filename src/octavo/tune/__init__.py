"""Tune: methods that make the int8 model more accurate without touching what it computes in float.

Each is a function of a `Quantizer` and works alone; `steps.py` applies those that `Config` names.
"""

from .bias import correct_biases
from .latency import choose_for_latency
from .steps import Converted, convert_tuned

__all__ = ["Converted", "choose_for_latency", "convert_tuned", "correct_biases"]
