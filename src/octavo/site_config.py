"""SiteConfig: settings of some sites, the values of `Config.sites`."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from .errors import ConfigError

OBSERVER_NAMES = ("minmax", "moving_average", "percentile", "mse", "entropy")
_CHOICES: dict[str, tuple[Any, ...]] = {
    "activations": ("static", "dynamic", "float"),
    "weights": (8, "float"),
    "per_channel": (True, False),
    "observer": OBSERVER_NAMES,
    "round_weights": (True, False),
    "equalize": (True, False),
}


@dataclass(frozen=True)
class SiteConfig:
    """How to quantize the sites that an entry of `Config.sites` names.

    A setting that is None leaves to these sites what earlier entries, or the `Config`, say.

    activations: how inputs are rounded: "static" (to a range known from calibration), "dynamic"
        (to the range that they have in each call, which needs no calibration; linear layers only:
        recurrent layers and embeddings compute in float on int8 weights, other sites keep what
        they have) or "float" (not at all).
    weights: 8, for int8, or "float". int8 weights with activations="float" are stored as int8 and
        computed with in float.
    group_size: of dynamic activations: so many neighbouring channels of a position share a scale;
        0: all of them. A multiple of 16.
    per_channel: whether each output channel of a weight has a scale of its own.
    observer: as in `Config`, for the ranges of static inputs.
    round_weights, equalize: as in `Config`.

    Raises ConfigError for an unknown value, and for integer activations with float weights.

    >>> SiteConfig(activations="float", weights="float").is_float
    True
    """

    activations: str | None = None
    weights: int | str | None = None
    group_size: int | None = None
    per_channel: bool | None = None
    observer: str | None = None
    round_weights: bool | None = None
    equalize: bool | None = None

    def __post_init__(self) -> None:
        for name, choices in _CHOICES.items():
            value = getattr(self, name)
            known = [c for c in choices if type(c) is type(value) and c == value]
            if value is not None and not known:
                raise ConfigError(
                    f"{name}={value!r} is unknown: choose one of {', '.join(map(repr, choices))}"
                )
        size = self.group_size
        if size is not None and (type(size) is not int or size < 0 or size % 16):
            raise ConfigError(f"group_size={size!r}: 0 or a multiple of 16 is needed")
        if self.weights == "float" and self.activations in ("static", "dynamic"):
            raise ConfigError(
                f"activations={self.activations!r} with weights='float': integer kernels need both "
                "as integers; give activations='float' too, or weights=8"
            )

    @property
    def is_float(self) -> bool:
        """Whether nothing is rounded."""
        return self.activations == self.weights == "float"

    def over(self, other: SiteConfig) -> SiteConfig:
        """These settings, and those of `other` where they are None."""
        mine = {name: v for name, v in vars(self).items() if v is not None}
        if mine.get("weights") == "float":
            mine.setdefault("activations", "float")
        elif mine.get("activations") in ("static", "dynamic"):
            mine.setdefault("weights", 8)
        return dataclasses.replace(other, **mine)


FLOAT = SiteConfig(activations="float", weights="float")


def as_site_configs(sites: Any) -> dict[str | int, SiteConfig]:
    """The entries of `Config.sites`, types by their names; values may be the fields in a dict.

    Raises ConfigError for anything but a mapping from paths, types, operators or numbers.
    """
    if not isinstance(sites, Mapping):
        raise ConfigError(
            f"sites={sites!r}: a dict is needed, such as {{'head': octavo.SiteConfig(...)}}"
        )
    found: dict[str | int, SiteConfig] = {}
    for entry, value in sites.items():
        if isinstance(entry, bool) or not isinstance(entry, str | int | type):
            raise ConfigError(
                f"sites has the key {entry!r}: give paths, types, operators or numbers of sites"
            )
        name = entry.__name__ if isinstance(entry, type) else entry
        found[name] = _as_site_config(name, value)
    return found


def _as_site_config(entry: str | int, value: Any) -> SiteConfig:
    if isinstance(value, SiteConfig):
        return value
    try:
        return SiteConfig(**value)
    except TypeError as e:
        known = ", ".join(f.name for f in dataclasses.fields(SiteConfig))
        raise ConfigError(
            f"sites[{entry!r}] is {value!r}: an octavo.SiteConfig is needed, with {known}"
        ) from e
    except ConfigError as e:
        raise ConfigError(f"sites[{entry!r}]: {e}") from e
