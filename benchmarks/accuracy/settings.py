"""The settings that are compared: Octavo's presets and methods, and its peers."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from functools import partial
from typing import Any

from torch import Tensor, nn

import octavo

from ..peers import frameworks

Quantize = Callable[[nn.Module, list[Tensor]], Any]  # with a network and calibration data


def by_octavo(config: str | octavo.Config) -> Quantize:
    return partial(frameworks.quantize_octavo, config=config)


def by_nncf(model: nn.Module, data: list[Tensor], accurate: bool = False, one: bool = False) -> Any:
    """accurate: its slower bias correction. one: samples one by one, as it averages ranges."""
    data = [x for batch in data for x in batch.split(1)] if one else data
    return frameworks.quantize_nncf(model, data, fast_bias_correction=not accurate)


TARGET = "target_sqnr=24"  # only on request
OCTAVO: dict[str, Quantize] = {
    **{name: by_octavo(name) for name in ("fast", "balanced", "best", "dynamic")},
    TARGET: by_octavo(octavo.Config(target_sqnr=24)),
}
PEERS: dict[str, Quantize] = {
    **OCTAVO,
    "nncf": by_nncf,
    "nncf 1 by 1": partial(by_nncf, one=True),
    "nncf accurate": partial(by_nncf, accurate=True),
    "nncf weights": frameworks.compress_nncf,
    "onnxruntime": frameworks.quantize_onnxruntime,
    "onnxruntime dynamic": frameworks.quantize_onnxruntime_dynamic,
    "torch.ao": frameworks.quantize_torch_ao,
    "torch.ao dynamic": frameworks.quantize_torch_ao_dynamic,
    "torchao": frameworks.quantize_torchao,
}


# Each method of the default alone, and what each preset would be without it.
fast, balanced, best = (octavo.PRESETS[name] for name in ("fast", "balanced", "best"))
change = dataclasses.replace
CONFIGS: dict[str, octavo.Config] = {
    "ranges only: minmax": fast,
    **{f"ranges only: {o}": change(fast, observer=o) for o in ("percentile", "mse", "entropy")},
    "minmax + bias correction": change(fast, correct_biases=True),
    "minmax + equalization": change(fast, equalize=True),
    "minmax + both": change(fast, correct_biases=True, equalize=True),
    "minmax + all three": change(balanced, observer="minmax"),
    "balanced": balanced,
    "balanced without bias correction": change(balanced, correct_biases=False),
    "balanced without equalization": change(balanced, equalize=False),
    "balanced without rounding": change(balanced, round_weights=False),
    "best": best,
    "best with minmax": change(best, observer="minmax"),
    "best without rounding": change(best, round_weights=False),
}
ABLATION: dict[str, Quantize] = {name: by_octavo(config) for name, config in CONFIGS.items()}
