"""The network beside the table: a lane for each value that is still to be read."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

MOST = 10  # lanes that are drawn; values beyond share the last


@dataclass(frozen=True)
class Lane:
    """What is drawn beside one row.

    own: the lane of its dot. into: lanes that end in it. through: lanes that pass it by.
    goes_on: whether anything below reads its value.
    """

    own: int
    into: tuple[int, ...] = ()
    through: tuple[int, ...] = ()
    goes_on: bool = False

    @property
    def all(self) -> tuple[int, ...]:
        """All lanes that it needs."""
        return (self.own, *self.into, *self.through)


@dataclass
class _Lanes:
    """Lane by lane, the value that runs in it; None for a free one."""

    values: list[str | None] = field(default_factory=list)

    def of(self, name: str) -> int:
        return min(self.values.index(name), MOST - 1)

    def enter(self, name: str) -> None:
        free = next((i for i, v in enumerate(self.values) if v is None), len(self.values))
        self.values[free : free + 1] = [name]

    def leave(self, name: str) -> None:
        self.values[self.values.index(name)] = None


def lanes_of(rows: Sequence[tuple[str, Sequence[str]]]) -> list[Lane]:
    """The drawing beside each row; rows are names with the names that each reads, in order.

    >>> [lane.own for lane in lanes_of([("a", ()), ("b", ["a"]), ("c", ["a", "b"])])]
    [0, 1, 0]
    """
    left = Counter(source for _, reads in rows for source in set(reads))
    lanes, found = _Lanes(), []
    for name, reads in rows:
        sources = [s for s in dict.fromkeys(reads) if s in lanes.values]
        into = tuple(dict.fromkeys(lanes.of(s) for s in sources))
        left.subtract(sources)
        for source in sources:
            if not left[source]:
                lanes.leave(source)
        through = tuple(dict.fromkeys(lanes.of(v) for v in lanes.values if v is not None))
        lanes.enter(name)
        found.append(Lane(lanes.of(name), into, through, left[name] > 0))
        if not left[name]:
            lanes.leave(name)
    return found
