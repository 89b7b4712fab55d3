"""Settings: one frozen dataclass that goes to JSON and back, and presets of it."""

import dataclasses
import json
from dataclasses import dataclass
from typing import Any

from .errors import ConfigError

OBSERVER_NAMES = ("minmax", "moving_average", "percentile", "mse", "entropy")


@dataclass(frozen=True)
class Config:
    """How to quantize. The defaults are right for most models: the preset "balanced".

    observer: how activation ranges are chosen: "minmax" (nothing clipped), "moving_average" (of
        each batch's extremes), "percentile" (99.99 % of the values kept), "mse" (least squared
        error) or "entropy" (least KL divergence, as in TensorRT; clips most).
    keep_float: sites that stay float: each entry a module path ("head", "blocks.*.mlp"; all that
        is inside it), a module type (`nn.LayerNorm` or "LayerNorm"), an operator ("conv2d"), a
        regular expression ("re:layer[34].*"), or a site's name or number in the report. One that
        matches nothing is an error.
    min_sqnr: in dB; where the outputs' signal to noise ratio on calibration data is lower, the few
        sites that bring most of the noise are turned float, with a warning. 0 turns it off.
    target_sqnr: in dB; the same without a warning, for an SQNR that is wanted.
    optimize: "size" (int8 wherever a rule has it) or "latency": sites without which OpenVINO runs
        the whole model faster on this machine stay float, those of an operator and shape together;
        some seconds.
    equalize: make the channels of a value alike before calibration, by moving a scale of each from
        the layers that make it to those that read it, where a trial on a few samples shows a gain.
    correct_biases: take back the shift that quantization gives each channel's mean, where that
        raises the SQNR measured on other samples.
    round_weights: choose each weight's integer and each channel's scale for least error of what
        the layer computes, in layers that the samples say enough of, where that raises the SQNR
        measured on other samples.
    rounding_seconds: after so long, the weights of the remaining layers take the nearest integer.
    reduce_range: weights of 7 bits, which CPUs need that add products in pairs of 16 bits: "auto"
        (if this machine's does: x86 without VNNI), True (it is to run on such a one) or False.
    tune_samples: calibration samples kept for the methods that look at them again.
    measure_samples: calibration samples kept to measure SQNR on; the ones tuned on are others,
        if there are enough.

    >>> Config.from_json(Config(keep_float=("head.*",)).to_json()).keep_float
    ('head.*',)
    """

    observer: str = "mse"
    keep_float: tuple[str | int, ...] = ()
    min_sqnr: float = 10.0
    target_sqnr: float = 0.0
    optimize: str = "size"
    equalize: bool = True
    correct_biases: bool = True
    round_weights: bool = True
    rounding_seconds: float = 600.0
    reduce_range: bool | str = "auto"
    tune_samples: int = 16
    measure_samples: int = 8

    def __post_init__(self) -> None:
        if self.observer not in OBSERVER_NAMES:
            known = ", ".join(map(repr, OBSERVER_NAMES))
            raise ConfigError(f"observer={self.observer!r} is unknown: choose one of {known}")
        if self.optimize not in ("size", "latency"):
            raise ConfigError(f"optimize={self.optimize!r}: choose 'size' or 'latency'")
        if self.reduce_range not in ("auto", True, False):
            raise ConfigError(f"reduce_range={self.reduce_range!r}: choose 'auto', True or False")
        if isinstance(self.keep_float, str | int | type):
            raise ConfigError(f"keep_float takes a list: keep_float=[{self.keep_float!r}]")
        entries = (e.__name__ if isinstance(e, type) else e for e in self.keep_float)
        object.__setattr__(self, "keep_float", tuple(entries))
        for name in ("tune_samples", "measure_samples"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name}={getattr(self, name)}: at least 1 is needed")

    def to_json(self) -> str:
        """As a JSON object."""
        return json.dumps(dataclasses.asdict(self))

    @classmethod
    def from_json(cls, text: str) -> "Config":
        """The inverse of `to_json`; raises ConfigError for unknown settings."""
        data: dict[str, Any] = json.loads(text)
        unknown = data.keys() - {f.name for f in dataclasses.fields(cls)}
        if unknown:
            raise ConfigError(f"unknown settings: {', '.join(sorted(unknown))}")
        return cls(**data)


# What each adds to accuracy and costs in time is measured in docs/accuracy.md.
PRESETS: dict[str, Config] = {
    "fast": Config(observer="minmax", equalize=False, correct_biases=False, round_weights=False),
    "balanced": Config(),
    "best": Config(tune_samples=32, measure_samples=32),
}


def as_config(config: Config | str | None) -> Config:
    """The settings of a preset's name, "balanced" for None; ConfigError for anything else.

    >>> as_config("fast").correct_biases
    False
    """
    if isinstance(config, Config):
        return config
    name = "balanced" if config is None else config
    if not isinstance(name, str) or name not in PRESETS:
        known = ", ".join(map(repr, PRESETS))
        raise ConfigError(f"config={config!r}: give an octavo.Config, or one of {known}")
    return PRESETS[name]
