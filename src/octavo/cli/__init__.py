"""The command line, a file for each command (`about` has three)."""

from __future__ import annotations

import sys
import warnings
from typing import Annotated, Any

import typer

from ..errors import CollapseWarning, OctavoError, PartitionWarning
from . import about, bench, compare, export, quantize, report, sensitivity
from .data import EnlargedWarning
from .options import err

app = typer.Typer(
    help="Turn a trained PyTorch model into a fast, accurate int8 model.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
for _command in (
    *(quantize.quantize, report.report, compare.compare, sensitivity.sensitivity, bench.bench),
    *(export.export, about.inspect, about.engines, about.version),
):
    app.command()(_command)


def _version(show: bool) -> None:
    if show:
        about.version()
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    pass


def _show_warning(message: Any, *_: Any, **__: Any) -> None:
    err.print(f"warning: {message}", style="yellow", markup=False, highlight=False)


def main(argv: list[str] | None = None) -> None:
    """Entry point: a user error ends in one readable message and exit code 2."""
    warnings.filterwarnings("ignore")
    for ours in (CollapseWarning, PartitionWarning, EnlargedWarning):
        warnings.filterwarnings("always", category=ours)
    warnings.showwarning = _show_warning
    try:
        app(args=argv)
    except OctavoError as e:
        err.print(f"error: {e}", style="red", markup=False, highlight=False)
        sys.exit(2)
    except KeyboardInterrupt:
        err.print("interrupted: nothing was written", style="red")
        sys.exit(130)
