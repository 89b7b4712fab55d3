"""Results that print as tables, and are JSON data."""

from __future__ import annotations

import dataclasses
import io
import math
from typing import Any

from rich.console import Console

WIDTH = 160  # characters, of a result as text


class Printed:
    """A dataclass of results, whose text, as `print` shows it, is what rich shows."""

    def __rich__(self) -> Any:
        raise NotImplementedError

    def __str__(self) -> str:
        out = io.StringIO()
        Console(file=out, width=WIDTH).print(self)
        return out.getvalue()

    def to_dict(self) -> dict[str, Any]:
        """All of it as JSON data; infinite numbers become the strings "inf" and "-inf"."""
        return dict(as_json_data(dataclasses.asdict(self)))  # type: ignore[call-overload]


def as_json_data(value: Any) -> Any:
    """Dicts, lists and numbers with infinite numbers as the strings "inf" and "-inf"."""
    if isinstance(value, dict):
        return {k: as_json_data(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [as_json_data(v) for v in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value
