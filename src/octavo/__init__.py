"""Octavo: a trained PyTorch model in, a fast and accurate int8 model out, in one call.

>>> import octavo, torch
>>> net = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 2))
>>> q = octavo.quantize(net, [torch.rand(16, 4) for _ in range(8)])
>>> q(torch.rand(3, 4)).shape
torch.Size([3, 2])
"""

import warnings
from typing import Any

from .capture.images import Image, with_images
from .compare import Comparison, compare
from .config import PRESETS, Config
from .errors import (
    CaptureError,
    CollapseWarning,
    ConfigError,
    ConversionError,
    DataError,
    EngineError,
    FormatError,
    OctavoError,
    PartitionWarning,
    PatternError,
    RangeWarning,
    SaveWarning,
)
from .io.export import export
from .io.file import load, save
from .legacy import DefaultQuant
from .metrics import sqnr
from .model import QuantizedModel, QuantizedParts
from .quantize import quantize
from .quantizer import Quantizer
from .report import Report
from .sensitivity import Sensitivity, sensitivity
from .sharded import quantize_sharded
from .site_config import SiteConfig
from .sites.patterns import ANY, DEFAULT_PATTERNS, register_pattern
from .sites.rules import FloatOp, PassThrough, Rule, Weighted

__version__ = "0.2.0"

__all__ = [
    "ANY",
    "DEFAULT_PATTERNS",
    "PRESETS",
    "CaptureError",
    "CollapseWarning",
    "Comparison",
    "Config",
    "ConfigError",
    "ConversionError",
    "DataError",
    "DefaultQuant",
    "EngineError",
    "FloatOp",
    "FormatError",
    "Image",
    "OctavoError",
    "PartitionWarning",
    "PassThrough",
    "PatternError",
    "QuantizedModel",
    "QuantizedParts",
    "Quantizer",
    "RangeWarning",
    "Report",
    "Rule",
    "SaveWarning",
    "Sensitivity",
    "SiteConfig",
    "Weighted",
    "compare",
    "export",
    "load",
    "quantize",
    "quantize_sharded",
    "register_pattern",
    "save",
    "sensitivity",
    "sqnr",
    "with_images",
]


def __getattr__(name: str) -> Any:
    """Names of 0.1 that work until 0.3."""
    if name == "FloatBetween":
        warnings.warn("octavo.FloatBetween is called octavo.FloatOp", DeprecationWarning, 2)
        return FloatOp
    raise AttributeError(f"module 'octavo' has no attribute {name!r}")
