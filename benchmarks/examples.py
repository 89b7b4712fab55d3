"""The trained networks and the images of `examples/`, which is a folder and no package."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType

ROOT = Path(__file__).resolve().parents[1]
EXAMPLES = str(ROOT / "examples")
if EXAMPLES not in sys.path:
    sys.path.insert(1, EXAMPLES)


def fashion_mnist() -> ModuleType:
    """Four small networks trained on Fashion-MNIST, and its images."""
    from fashion import nets

    return nets


def imagenet() -> ModuleType:
    """EfficientNet-Lite0 with its ImageNet weights, and crops of photos."""
    import imagenet

    return imagenet


def reading() -> ModuleType:
    """A small network that reads printed words, with its weights."""
    import reading

    return reading
