"""An SQNR to reach, at the least time of a call: Octavo beside NNCF's accuracy control.

    pip install -e .[bench,demo]
    python -m benchmarks.accuracy.target --markdown docs/measured/target.md
    python -m benchmarks.accuracy.target mobilenet_v2 --goals 24 27

Octavo's is `quantize(target_sqnr=...)`, NNCF's `quantize_with_accuracy_control` with the SQNR on
the calibration data as its metric. Goals are in dB above what Octavo's default has there. The dB in
the table are of the evaluation data; ms is the median of calls with one sample, called in turns.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

import octavo

from ..command_line import add_json, add_markdown, make_parser
from ..internals import sqnr_of_all
from ..measuring import attempt, time_alternately
from ..output import machine, make_table, number, print_tables, write_json
from ..peers.frameworks import convert_openvino, warm_up
from .compare import outputs, runner
from .networks import Task, add_networks, available

ABOVE = (2.0, 4.0)  # dB, above the default
EXACT = 100.0  # dB, of the float model
COLUMNS = ["network", "goal dB", "by", "SQNR dB", "ms", "s", "ms / NNCF's", "s / NNCF's"]


@dataclass
class Result:
    network: str
    goal: float
    by: str
    seconds: float
    error: str = ""
    sqnr: float | None = None
    ms: float | None = None


def by_octavo(task: Task, goal: float) -> Any:
    return octavo.quantize(task.model, task.calibration, target_sqnr=goal, progress=False)


@torch.no_grad()
def by_nncf(task: Task, goal: float) -> Any:
    import nncf

    expected = {x.data_ptr(): task.model(x) for x in task.calibration}

    def metric(model: Any, data: Iterable[Any]) -> tuple[float, list[float]]:
        """Of all batches, and of each: NNCF ranks operators by some of them."""
        pairs = []
        for x in map(torch.as_tensor, data):
            pairs.append((expected[x.data_ptr()], torch.from_numpy(np.array(model(x.numpy())[0]))))
        return min(EXACT, sqnr_of_all(pairs)), [min(EXACT, sqnr_of_all([p])) for p in pairs]

    attends = any("attention" in type(m).__name__.lower() for m in task.model.modules())
    data = nncf.Dataset(task.calibration, Tensor.numpy)
    return nncf.quantize_with_accuracy_control(
        convert_openvino(task.model, task.calibration),
        data,
        data,
        metric,
        max_drop=EXACT - goal,
        drop_type=nncf.DropType.ABSOLUTE,
        model_type=nncf.ModelType.TRANSFORMER if attends else None,
    )


PEERS: dict[str, Callable[[Task, float], Any]] = {"Octavo": by_octavo, "NNCF": by_nncf}


def measure(name: str, task: Task, goals: Iterable[float]) -> list[Result]:
    expected = outputs(task, task.model)
    one = task.evaluation[0][:1].clone()
    results = []
    for goal in goals:
        calls, found = {}, {}
        for peer, quantize in PEERS.items():
            done = attempt(quantize, task, goal)
            found[peer] = Result(name, goal, peer, done.seconds, done.error)
            if done.error:
                continue
            run, _ = runner(done.value)
            found[peer].sqnr = sqnr_of_all([(expected, outputs(task, run))])
            calls[peer] = partial(run, one)
        for peer, times in time_alternately(calls, 12, 10).items():
            found[peer].ms = statistics.median(times)
        results += found.values()
    return results


def table(results: list[Result]) -> Table:
    made = make_table(COLUMNS, texts=(0, 2))
    theirs = {(r.network, r.goal): r for r in results if r.by == "NNCF"}
    for r in results:
        nncf = theirs[r.network, r.goal]
        ratios = (r.ms / nncf.ms if r.ms and nncf.ms else None, r.seconds / nncf.seconds)
        made.add_row(
            r.network,
            number(r.goal, 0),
            r.by,
            r.error[:40] or number(r.sqnr, 1),
            number(r.ms, 3),
            number(r.seconds, 1),
            *(number(ratio, 2) for ratio in (ratios if r.by == "Octavo" else (None, None))),
        )
    return made


def main() -> None:
    parser = make_parser("benchmarks.accuracy.target", __doc__)
    add_networks(parser)
    parser.add_argument("--goals", nargs="+", type=float, metavar="DB", help="in dB, themselves")
    add_json(parser)
    add_markdown(parser)
    options = parser.parse_args()
    warm_up(["octavo", "nncf"])
    results: list[Result] = []
    console = Console(stderr=True)
    for name, task in available(options.networks, console):
        with console.status(f"measuring {name}"):
            goals = options.goals
            if not goals:
                plain = octavo.quantize(task.model, task.calibration, progress=False).sqnr
                goals = [round(plain + more) for more in ABOVE]
            results += measure(name, task, goals)
    print_tables([table(results)], options.markdown)
    write_json(options.json, machine(), results)


if __name__ == "__main__":
    main()
