"""What became of the architectures, as a Markdown table with a summary."""

from __future__ import annotations

import statistics
from dataclasses import dataclass, field

from ..output import number

HEAD = """| architecture | int8 | dB to float | dB between engines | quantize s | note |
|---|---|---|---|---|---|"""


@dataclass
class Result:
    """What became of one architecture; None where it did not come to that."""

    name: str
    step: str = "build"  # the last that was begun; "done" at the end
    error: str = ""
    int8_share: float | None = None
    sqnr_db: float | None = None
    engines_db: float | None = None
    seconds: float | None = None
    warned: str = ""
    float_sites: dict[str, int] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    @property
    def is_low(self) -> bool:
        """Whether its SQNR is so low that its row says why."""
        return self.sqnr_db is not None and self.sqnr_db < 20


def line(r: Result) -> str:
    """One row of the table."""
    figures = [number(r.int8_share, 1, factor=100, unit="%")]
    figures += [number(v, 1) for v in (r.sqnr_db, r.engines_db, r.seconds)]
    note = f"{r.step}: {r.error}" if r.error else ""
    if not note and r.is_low:
        note = r.warned or "; ".join(f"{n} x {site}" for site, n in r.float_sites.items())
    note = "; ".join([note] * bool(note) + r.notes)
    return f"| {' | '.join([r.name, *figures, note.replace('|', '/')])} |"


def as_markdown(results: list[Result]) -> str:
    table = "\n".join([HEAD, *map(line, results)])
    return f"{summary(results)}\n\n{table}\n"


def summary(results: list[Result]) -> str:
    """Counts and medians over all architectures."""
    done = [r for r in results if r.step == "done"]
    captured = [r for r in results if not r.error.startswith(("CaptureError", "took"))]
    shares = [r.int8_share for r in done if r.int8_share is not None]
    agree = [r.engines_db for r in done if r.engines_db is not None]
    lines = [
        f"{len(results)} architectures, {len(captured)} captured, {len(done)} quantized and run "
        f"on both engines; {sum(not r.is_low for r in done)} of them at 20 dB or more.",
    ]
    if done:
        lines.append(
            f"Median: {100 * statistics.median(shares):.1f}% of multiply-adds in int8, "
            f"{statistics.median(r.sqnr_db for r in done):.1f} dB against float, "
            f"{statistics.median(agree):.1f} dB between the engines."
        )
    return "\n".join(lines)
