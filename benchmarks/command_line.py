"""What the command lines of all benchmarks have in common."""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from pathlib import Path


def make_parser(module: str, documentation: str | None) -> argparse.ArgumentParser:
    """A parser for `python -m module`, whose help is the documentation of that module."""
    summary, _, details = (documentation or "").partition("\n\n")
    return argparse.ArgumentParser(
        prog=f"python -m {module}",
        description=summary,
        epilog=details,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )


def add_peers(
    parser: argparse.ArgumentParser, peers: Iterable[str], default: Iterable[str] = ()
) -> None:
    """Let a command take the names of some of the peers."""
    known = list(peers)
    parser.add_argument(
        "--peers",
        nargs="+",
        choices=known,
        metavar="PEER",
        default=list(default),
        help=f"of {', '.join(known)}",
    )


def add_json(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures")


def add_markdown(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="write the tables")
