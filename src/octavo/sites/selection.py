"""Which sites an entry of `Config.sites` or `Config.keep_float` names, and their settings."""

from __future__ import annotations

import dataclasses
import fnmatch
import re
from collections.abc import Mapping, Sequence

from torch import fx

from ..config import Config
from ..errors import ConfigError, near_names
from ..graph.names import module_stack, operator_name
from ..site_config import SiteConfig
from .rules.base import Rule


def site_settings(
    config: Config, rules: Mapping[fx.Node, Rule], stored: str = "float"
) -> tuple[dict[fx.Node, SiteConfig], dict[fx.Node, str]]:
    """The settings of each site, all of them set; and why those are float that are set to be.

    stored: the activations of sites that store int8 weights and compute in float, if none is set.
    Raises ConfigError for an entry that names no site, or no linear layer where it sets dynamic
    activations.
    """
    general = config.of_all_sites
    linear = SiteConfig("dynamic").over(general) if config.activations == "dynamic" else general
    float_on_int8 = SiteConfig(stored).over(general)
    settings = {
        root: linear if rule.may_be_dynamic else float_on_int8 if rule.stores_int8 else general
        for root, rule in rules.items()
    }
    covered = {root: rule.nodes for root, rule in rules.items()}
    labels: dict[fx.Node, str] = {}
    for entry, given, label in config.site_entries:
        named = select(entry, covered, label)
        if given.activations == "dynamic":
            named = [r for r in named if rules[r].may_be_dynamic or rules[r].stores_int8]
            if not named:
                raise ConfigError(
                    f"{label} names no linear layer: only their activations can be dynamic"
                )
        for root in named:
            own = given
            if given.activations == "dynamic" and not rules[root].may_be_dynamic:
                own = dataclasses.replace(given, activations="float", weights=8)
            settings[root] = own.over(settings[root])
            labels[root] = label
    is_float = {root for root, s in settings.items() if s.activations == "float"}
    no_int8 = {r for r in is_float if settings[r].weights == "float" or not rules[r].weights()}
    return settings, {root: labels[root] for root in no_int8 if root in labels}


def select(
    entry: str | int, sites: Mapping[fx.Node, Sequence[fx.Node]], label: str
) -> list[fx.Node]:
    """The sites that `entry` names; raises ConfigError, listing near names, if it names none.

    sites: root of each site -> the nodes it covers, in the order of their numbers. label: what a
    message calls the entry.

    An int is the number of a site in the report; "re:..." a regular expression; any other text a
    module's path or type, an operator or a site's name, in which * and ? stand for anything. A
    module stands for all that is inside it.
    """
    if isinstance(entry, int):
        if not 0 <= entry < len(sites):
            raise ConfigError(f"{label}: the sites are numbered 0 to {len(sites) - 1}")
        return [list(sites)[entry]]
    names = {site: {site.name}.union(*map(_names, nodes)) for site, nodes in sites.items()}
    found = [site for site, known in names.items() if any(_fits(entry, k, label) for k in known)]
    if not found and entry.isdecimal():  # a number, as the command line passes it
        return select(int(entry), sites, label)
    if not found:
        near = near_names(entry.removeprefix("re:"), set().union(*names.values()))
        raise ConfigError(
            f"{label} matches no site. {near}. "
            "Entries are module paths or types, operators, names of sites (* and ? allowed), "
            "regular expressions (re:...) or numbers of sites"
        )
    return found


def _fits(entry: str, name: str, label: str) -> bool:
    if not entry.startswith("re:"):
        return fnmatch.fnmatchcase(name, entry)
    try:
        return re.fullmatch(entry[3:], name) is not None
    except re.error as e:
        raise ConfigError(f"{label} is no regular expression: {e}") from e


def _names(node: fx.Node) -> set[str]:
    """A node's operator, and the path and type of every module it is in."""
    names = {operator_name(node)}
    for path, kind in module_stack(node):
        names |= {path, kind}
    if node.op == "call_module":
        names.add(str(node.target))
    return names - {""}
