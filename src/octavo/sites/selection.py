"""Which sites an entry of `Config.keep_float` names."""

import fnmatch
import re
from collections.abc import Mapping, Sequence

from torch import fx

from ..errors import ConfigError, near_names
from ..graph.names import module_stack, operator_name


def select(entry: str | int, sites: Mapping[fx.Node, Sequence[fx.Node]]) -> list[fx.Node]:
    """The sites that `entry` names; raises ConfigError, listing near names, if it names none.

    sites: root of each site -> the nodes it covers, in the order of their numbers.

    An int is the number of a site in the report; "re:..." a regular expression; any other text a
    module's path or type, an operator or a site's name, in which * and ? stand for anything. A
    module stands for all that is inside it.
    """
    if isinstance(entry, int):
        if not 0 <= entry < len(sites):
            raise ConfigError(f"keep_float={entry}: the sites are numbered 0 to {len(sites) - 1}")
        return [list(sites)[entry]]
    names = {site: {site.name}.union(*map(_names, nodes)) for site, nodes in sites.items()}
    found = [site for site, known in names.items() if any(_fits(entry, k) for k in known)]
    if not found and entry.isdecimal():  # a number, as the command line passes it
        return select(int(entry), sites)
    if not found:
        near = near_names(entry.removeprefix("re:"), set().union(*names.values()))
        raise ConfigError(
            f"keep_float={entry!r} matches no site. {near}. "
            "Entries are module paths or types, operators, names of sites (* and ? allowed), "
            "regular expressions (re:...) or numbers of sites"
        )
    return found


def _fits(entry: str, name: str) -> bool:
    if not entry.startswith("re:"):
        return fnmatch.fnmatchcase(name, entry)
    try:
        return re.fullmatch(entry[3:], name) is not None
    except re.error as e:
        raise ConfigError(f"keep_float={entry!r} is no regular expression: {e}") from e


def _names(node: fx.Node) -> set[str]:
    """A node's operator, and the path and type of every module it is in."""
    names = {operator_name(node)}
    for path, kind in module_stack(node):
        names |= {path, kind}
    if node.op == "call_module":
        names.add(str(node.target))
    return names - {""}
