"""Results that print as tables."""

from __future__ import annotations

import io
from typing import Any

from rich.console import Console

WIDTH = 160  # characters, of a result as text


class Printed:
    """A result whose text, as `print` shows it, is what rich shows."""

    def __rich__(self) -> Any:
        raise NotImplementedError

    def __str__(self) -> str:
        out = io.StringIO()
        Console(file=out, width=WIDTH).print(self)
        return out.getvalue()
