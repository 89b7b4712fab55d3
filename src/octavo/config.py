"""Settings: one frozen dataclass that goes to JSON and back, and presets of it."""

import dataclasses
import json
import math
import numbers
import sys
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from .errors import ConfigError, near_names
from .site_config import FLOAT, OBSERVER_NAMES, SiteConfig, as_site_configs

CHOICES: dict[str, tuple[str | bool, ...]] = {
    "observer": OBSERVER_NAMES,
    "activations": ("auto", "static", "dynamic"),
    "optimize": ("size", "latency"),
    "equalize": (True, False),
    "correct_biases": (True, False),
    "round_weights": (True, False),
    "reduce_range": ("auto", True, False),
}

GROUP_SIZE = 64  # of dynamic activations; 32 gains 0.8 dB on a text encoder, and is slower


@dataclass(frozen=True)
class Config:
    """How to quantize. The defaults, the preset "balanced", suit most models.

    observer: how activation ranges are chosen: "minmax" (nothing clipped), "moving_average" (of
        each batch's extremes), "percentile" (99.99 % of the values kept), "mse" (least squared
        error) or "entropy" (least KL divergence, as in TensorRT; clips most).
    activations: how the inputs of linear layers are rounded: "static" (to a range known from
        calibration), "dynamic" (to the range that they have in each call) or "auto" (dynamic where
        a trial on a few samples shows a gain, and OpenVINO is nearly as fast on this machine).
    sites: settings of some sites, as a dict: {"encoder.*": SiteConfig(activations="dynamic")}. Its
        keys are entries like those of keep_float; where several name a site, later ones win.
    keep_float: sites that stay float, whatever `sites` says. Each entry is a module path ("head",
        "blocks.*.mlp"; it matches everything inside), a module type (`nn.LayerNorm` or
        "LayerNorm"), an operator ("conv2d"), a regular expression ("re:layer[34].*"), or a site's
        name or number in the report. An entry that matches nothing is an error.
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
    search_seconds: time for trying further settings, such as ranges refined to the noise at the
        output, and operators that cost no time in float; each is judged on samples that nothing was
        tuned on, the first ones of the data: samples that belong together (crops of one photo,
        frames of one clip) should follow each other there, or see `groups` of `quantize`. 0 for
        none. The trial that is under way is finished.
    memory: in bytes; fewer samples are kept for tuning, one at least, where the values of all of
        them would take more than this beside the model.

    Raises ConfigError for an unknown name or a value out of range.

    >>> Config.from_json(Config(keep_float=("head.*",)).to_json()).keep_float
    ('head.*',)
    """

    observer: str = "mse"
    activations: str = "auto"
    sites: Mapping[str | int, SiteConfig] = field(default_factory=dict)
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
    search_seconds: float = 0.0
    memory: float = 2 * 2.0**30

    def __post_init__(self) -> None:
        for name, choices in CHOICES.items():
            value = getattr(self, name)
            if not isinstance(value, str | bool) or value not in choices:
                known = ", ".join(map(repr, choices))
                is_preset = isinstance(value, str) and value in PRESETS
                hint = f"; the preset is config={value!r}" if is_preset else ""
                raise ConfigError(f"{name}={value!r} is unknown: choose one of {known}{hint}")
        for name in ("min_sqnr", "target_sqnr", "rounding_seconds", "search_seconds"):
            no_limit = name.endswith("_seconds")
            wanted = "0 or more seconds" if no_limit else "a finite number of dB, 0 or more,"
            self._number(name, float, 0.0, math.inf if no_limit else sys.float_info.max, wanted)
        for name in ("tune_samples", "measure_samples"):
            self._number(name, int, 1, math.inf, "a whole number, at least 1,")
        self._number("memory", float, 0.0, math.inf, "a number of bytes, 0 or more,")
        object.__setattr__(self, "keep_float", tuple(_entries(self.keep_float)))
        object.__setattr__(self, "sites", as_site_configs(self.sites))

    @property
    def site_entries(self) -> list[tuple[str | int, SiteConfig, str]]:
        """Entries that name sites, their settings and how a message calls them; later ones win."""
        given = [(e, settings, f"sites[{e!r}]") for e, settings in self.sites.items()]
        return [*given, *((e, FLOAT, f"keep_float={e!r}") for e in self.keep_float)]

    @property
    def of_all_sites(self) -> SiteConfig:
        """What holds for a site that no entry names."""
        return SiteConfig(
            activations="static",
            weights=8,
            group_size=GROUP_SIZE,
            per_channel=True,
            observer=self.observer,
            round_weights=self.round_weights,
            equalize=self.equalize,
        )

    def _number(
        self, name: str, kind: type[int | float], least: float, most: float, wanted: str
    ) -> None:
        """Check a setting, and make a number of numpy's one of Python's, which JSON has."""
        value = getattr(self, name)
        fits = isinstance(value, numbers.Integral if kind is int else numbers.Real)
        if fits and not isinstance(value, int | float):
            value = kind(value)
            object.__setattr__(self, name, value)
        if not fits or isinstance(value, bool) or not least <= value <= most:
            raise ConfigError(f"{name}={value!r}: {wanted} is needed")

    def to_json(self) -> str:
        """As a JSON object."""
        return json.dumps(dataclasses.asdict(self))

    @classmethod
    def from_json(cls, text: str) -> "Config":
        """The inverse of `to_json`; raises ConfigError for other text and unknown settings."""
        try:
            data = json.loads(text)
        except (TypeError, ValueError) as e:
            raise ConfigError(f"settings are a JSON object, as to_json makes it: {e}") from e
        if not isinstance(data, dict):
            raise ConfigError(f"settings are a JSON object, not {text!r}")
        return cls._from(data)

    @classmethod
    def from_toml(cls, text: str) -> "Config":
        '''The settings in a TOML document; raises ConfigError as `from_json` does.

        >>> config = Config.from_toml("""observer = "minmax"
        ... [sites."encoder.*"]
        ... activations = "dynamic"
        ... """)
        >>> config.sites["encoder.*"].activations
        'dynamic'
        '''
        try:
            data = tomllib.loads(text)
        except (TypeError, tomllib.TOMLDecodeError) as e:
            raise ConfigError(f"settings are a TOML document: {e}") from e
        return cls._from(data)

    def to_toml(self) -> str:
        """The inverse of `from_toml`; settings of sites that are None are left out.

        >>> Config.from_toml(Config(sites={"head": {"observer": "minmax"}}).to_toml()).sites["head"]
        ... # doctest: +ELLIPSIS
        SiteConfig(...observer='minmax', ...)
        """
        data = dataclasses.asdict(self)
        sites = data.pop("sites")
        lines = [f"{name} = {_toml(value)}" for name, value in data.items()]
        for entry, settings in sites.items():
            lines += ["", f"[sites.{_toml(str(entry))}]"]
            lines += [f"{k} = {_toml(v)}" for k, v in settings.items() if v is not None]
        return "\n".join(lines) + "\n"

    @classmethod
    def _from(cls, data: Mapping[str, Any]) -> "Config":
        unknown = data.keys() - {f.name for f in dataclasses.fields(cls)}
        if unknown:
            known = near_names(min(unknown), [f.name for f in dataclasses.fields(cls)])
            raise ConfigError(f"unknown settings: {', '.join(sorted(unknown))}. {known}")
        return cls(**data)


def _toml(value: Any) -> str:
    """A value in TOML, which writes infinity and some characters differently from JSON."""
    if isinstance(value, float) and math.isinf(value):
        return str(value)
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def _entries(keep_float: Any) -> Iterator[str | int]:
    """The entries of the list, types by their names."""
    whole = isinstance(keep_float, str | int | type | Mapping) or not isinstance(
        keep_float, Iterable
    )
    if whole:
        example = "" if keep_float is None else repr(keep_float)
        raise ConfigError(f"keep_float={keep_float!r}: a list is needed, keep_float=[{example}]")
    for entry in keep_float:
        if isinstance(entry, bool) or not isinstance(entry, str | int | type):
            kind = type(entry).__name__
            raise ConfigError(
                f"keep_float holds a {kind}: give paths, types, operators or numbers of sites"
            )
        yield entry.__name__ if isinstance(entry, type) else entry


# What each adds to accuracy and costs in time is measured in docs/accuracy.md.
PRESETS: dict[str, Config] = {
    "fast": Config(
        observer="minmax",
        activations="static",
        equalize=False,
        correct_biases=False,
        round_weights=False,
    ),
    "balanced": Config(),
    "best": Config(tune_samples=128, measure_samples=192, search_seconds=600.0),
    "dynamic": Config(
        activations="static",
        equalize=False,
        correct_biases=False,
        round_weights=False,
        sites={"*": FLOAT, "re:linear|lstm|gru|rnn_.*": SiteConfig(activations="dynamic")},
    ),
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
