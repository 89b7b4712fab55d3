"""The command line: `octavo quantize`, `report`, `export` and `bench`, a file for each command."""

from __future__ import annotations

import sys
import warnings
from typing import Annotated, Any

import torch
import typer

from .. import __version__
from ..errors import CollapseWarning, OctavoError, PartitionWarning
from . import bench, export, quantize, report
from .options import err, out

app = typer.Typer(
    help="Turn a trained PyTorch model into a fast, accurate int8 model.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
for _command in (quantize.quantize, report.report, export.export, bench.bench):
    app.command()(_command)


def _version(show: bool) -> None:
    if show:
        out.print(f"octavo {__version__}, torch {torch.__version__}")
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
    for ours in (CollapseWarning, PartitionWarning):
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
