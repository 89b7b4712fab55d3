"""What a call that takes long shows on a terminal: what it does, how far it is, the time left."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from typing import Any, TypeVar

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from torch import Tensor

Item = TypeVar("Item")


@contextlib.contextmanager
def working(what: str, show: bool = True) -> Iterator[None]:
    """Say what is done and for how long, while it is done."""
    with _display(show, SpinnerColumn(), TextColumn(what), TimeElapsedColumn()) as bar:
        bar.add_task(what, total=None)
        yield


def tracked(
    items: Iterable[Item], what: str, total: int | None, show: bool = True
) -> Iterator[Item]:
    """The items, with a bar of how many of `total` (None: unknown) are done."""
    counts = (TextColumn(what), BarColumn(), MofNCompleteColumn())
    with _display(show, *counts, TimeElapsedColumn(), TimeRemainingColumn()) as bar:
        yield from bar.track(items, total=total)


def number_of_calls(data: Any) -> int | None:
    """How many calls the data of a user are, if that is known without reading them.

    >>> number_of_calls([1, 2, 3]), number_of_calls(iter([1, 2, 3]))
    (3, None)
    """
    if isinstance(data, tuple | dict):  # one call or several: the model's parameters decide
        return None
    if isinstance(data, Tensor):
        return 1
    try:
        return len(data)
    except TypeError:
        return None


def _display(show: bool, *columns: ProgressColumn) -> Progress:
    """One that vanishes at its end, and is hidden where there is no terminal."""
    console = Console(stderr=True)
    hidden = not (show and console.is_terminal)
    return Progress(*columns, console=console, transient=True, disable=hidden)
