"""Settings: one frozen dataclass that goes to JSON and back, and presets of it."""

import dataclasses
import json
from dataclasses import dataclass
from typing import Any

from .errors import ConfigError

OBSERVER_NAMES = ("minmax", "moving_average", "percentile", "mse", "entropy")


@dataclass(frozen=True)
class Config:
    """How to quantize. The defaults, the preset "balanced", suit most models.

    observer: how activation ranges are chosen: "minmax" (nothing clipped), "moving_average" (of
        each batch's extremes), "percentile" (99.99 % of the values kept), "mse" (least squared
        error) or "entropy" (least KL divergence, as in TensorRT; clips most).
    keep_float: sites that stay float. Each entry is a module path ("head", "blocks.*.mlp"; it
        matches everything inside), a module type (`nn.LayerNorm` or "LayerNorm"), an operator
        ("conv2d"), a regular expression ("re:layer[34].*"), or a site's name or number in the
        report. An entry that matches nothing is an error.
    min_sqnr: in dB. Where the SQNR of the output on calibration data is lower, the sites that cause
        most of the noise fall back to float, with a warning. 0 turns this off.
    target_sqnr: in dB. Keep as few sites float as it takes for the output to reach this SQNR.
    optimize: "size" (int8 wherever a rule allows it) or "latency": measure on this machine, and
        keep operators float whose int8 form makes the whole model slower. Takes some seconds.
    equalize: bring the channels of a value to similar ranges, by moving a scale per channel from
        the layers before it into those after it. Kept where a trial on a few samples shows a gain.
    correct_biases: correct the shift that quantization causes in the mean of each channel. Kept
        where it raises the SQNR on held-out samples.
    round_weights: round each weight so that later weights compensate its error (GPTQ), in layers
        with enough calibration data. Kept where it raises the SQNR on held-out samples.
    rounding_seconds: time limit for round_weights; layers not reached keep nearest rounding.
    reduce_range: use 7-bit weights, to avoid int16 saturation on x86 CPUs without VNNI. "auto"
        (as this machine needs it), True or False.
    tune_samples: number of calibration samples kept for tuning.
    measure_samples: number of calibration samples kept to measure SQNR on; they differ from those
        kept for tuning, if there are enough.

    Raises ConfigError for an unknown name or a value out of range.

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
    """A `Config` as it is, or that of a preset's name (None: "balanced"); else raises ConfigError.

    >>> as_config("fast").correct_biases
    False
    """
    if isinstance(config, Config):
        return config
    name = "balanced" if config is None else config
    if not isinstance(name, str) or name not in PRESETS:
        known = ", ".join(map(repr, PRESETS))
        raise ConfigError(f"config={config!r}: pass an octavo.Config, or one of {known}")
    return PRESETS[name]
