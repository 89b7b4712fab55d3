"""Time and peak memory of quantizing the networks of accuracy.py, each in a process of its own.

    python benchmarks/accuracy_cost.py                      # needs what accuracy.py needs; Linux
    python benchmarks/accuracy_cost.py lite0 --peers balanced nncf --markdown cost.md

Seconds of conversion with calibration and tuning; memory in MB that it took beyond what the process
held before, with the network, the data and all imports in it.
"""

from __future__ import annotations

import argparse
import multiprocessing
import re
from pathlib import Path

import peer_tools
from accuracy import PEERS
from accuracy_nets import NETS, tasks
from peer_table import tell
from rich import box
from rich.console import Console
from rich.table import Table

DEFAULT = ["fast", "balanced", "best", "nncf", "nncf accurate"]


def memory(of: str) -> float:
    """VmRSS (now) or VmHWM (the most since it was reset) of this process, in MB."""
    kilobytes = re.search(rf"{of}:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert kilobytes is not None
    return int(kilobytes[1]) * 1024 / 1e6


def cost(net: str, peer: str) -> str:
    """ "seconds / MB", or why there are none; in this process, for the first time."""
    peer_tools.warm_up(["octavo", "nncf"])
    ((_, task),) = tasks([net])
    if isinstance(task, str):
        return task
    task.model(task.calibration[0])
    before = memory("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # forgets the peak so far
    done = peer_tools.attempt(PEERS[peer], task.model, task.calibration)
    if done.error:
        return "fails"
    return f"{done.seconds:.1f} / {max(memory('VmHWM') - before, 0):.0f}"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("nets", nargs="*", default=list(NETS), help=", ".join(NETS))
    parser.add_argument("--peers", nargs="+", choices=list(PEERS), default=DEFAULT)
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="write the table")
    options = parser.parse_args()
    table = Table(box=box.MARKDOWN)
    for i, column in enumerate(("s / MB", *options.peers)):
        table.add_column(column, justify="right" if i else "left")
    console = Console(stderr=True)
    with multiprocessing.get_context("spawn").Pool(1, maxtasksperchild=1) as pool:
        for net in options.nets:
            with console.status(f"measuring {net}"):
                table.add_row(net, *(pool.apply(cost, (net, peer)) for peer in options.peers))
    tell([table], options.markdown)


if __name__ == "__main__":
    main()
