"""Time and peak memory of quantizing trained networks, each in a process of its own.

    python -m benchmarks.accuracy.cost                      # needs what benchmarks.accuracy needs
    python -m benchmarks.accuracy.cost lite0 --peers balanced nncf --markdown cost.md

Seconds of conversion with calibration and tuning; memory in MB that it took beyond what the process
held before, with the network, the data and all imports in it. For Linux.
"""

from __future__ import annotations

from rich.console import Console

from ..command_line import add_markdown, add_peers, make_parser
from ..measuring import (
    attempt,
    in_fresh_process,
    peak_memory,
    reset_peak_memory,
    resident_memory,
)
from ..output import make_table, print_tables
from ..peers.frameworks import warm_up
from .networks import add_networks, tasks
from .settings import PEERS

DEFAULT = ["fast", "balanced", "best", "nncf", "nncf accurate"]


def cost(name: str, peer: str) -> str:
    """ "seconds / MB", or why there are none; in this process, for the first time."""
    warm_up(["octavo", "nncf"])
    ((_, task),) = tasks([name])
    if isinstance(task, str):
        return task
    task.model(task.calibration[0])
    before = resident_memory()
    reset_peak_memory()
    done = attempt(PEERS[peer], task.model, task.calibration)
    if done.error:
        return "fails"
    return f"{done.seconds:.1f} / {max(peak_memory() - before, 0):.0f}"


def main() -> None:
    parser = make_parser("benchmarks.accuracy.cost", __doc__)
    add_networks(parser)
    add_peers(parser, PEERS, default=DEFAULT)
    add_markdown(parser)
    options = parser.parse_args()
    table, console = make_table(("s / MB", *options.peers)), Console(stderr=True)
    for name in options.networks:
        with console.status(f"measuring {name}"):
            costs = [in_fresh_process(cost, name, peer) for peer in options.peers]
            table.add_row(name, *costs)
    print_tables([table], options.markdown)


if __name__ == "__main__":
    main()
