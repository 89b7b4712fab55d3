"""Tune: methods that make the int8 model more accurate without touching what it computes in float.

Each is a function of a `Quantizer` and works alone; `steps.py` applies those that `Config` names.
What changes layers one by one (`correct_biases`, `round_weights`) is given to `tune_layers`.
"""

from .bias import correct_biases
from .effects import site_effects
from .equalize import equalize
from .latency import choose_for_latency
from .rounding import round_weights
from .runs import tune_layers
from .steps import Converted, Evidence, convert_tuned, equalize_if_better

__all__ = [
    "Converted",
    "Evidence",
    "choose_for_latency",
    "convert_tuned",
    "correct_biases",
    "equalize",
    "equalize_if_better",
    "round_weights",
    "site_effects",
    "tune_layers",
]
