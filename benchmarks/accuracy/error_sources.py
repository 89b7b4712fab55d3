"""What is left of the error on trained networks: of weights or activations, and of which.

    python -m benchmarks.accuracy.error_sources             # needs what benchmarks.accuracy needs
    python -m benchmarks.accuracy.error_sources mobilenet_v2 --config fast

SQNR of the outputs on the evaluation data: of the int8 model, of one with int8 weights only, and of
one with int8 activations only, each tuned as the configuration says. Then the activations, by the
noise that the rounding of each alone brings to the output, estimated from gradients on the samples
tuned on: how many of them bring half of the noise, and the one that brings most, by the module that
computes it, with its share.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from rich.console import Console
from torch import Tensor

import octavo

from ..command_line import add_markdown, make_parser
from ..internals import error_sources, sqnr_of_all
from ..output import make_table, print_tables
from .networks import Task, add_networks, available

COLUMNS = ("network", "int8 dB", "weights dB", "activations dB", "half of the latter in", "largest")


def row(name: str, task: Task, config: octavo.Config) -> list[str]:
    int8, weights, activations, noise = error_sources(task.model, task.calibration, config)
    largest, energy = noise[0]
    total = sum(energy for _, energy in noise)
    half = count_to_half([energy for _, energy in noise])
    return [
        name,
        *(f"{sqnr(task, model):.1f}" for model in (int8, weights, activations)),
        f"{half} of {len(noise)}",
        f"{largest} {energy / total:.0%}",
    ]


def count_to_half(energies: list[float]) -> int:
    """How many of the energies, the largest first, make at least half of their sum."""
    total, so_far, count = sum(energies), 0.0, 0
    while so_far < total / 2:
        so_far += energies[count]
        count += 1
    return count


@torch.no_grad()
def sqnr(task: Task, run: Callable[[Tensor], Any]) -> float:
    """Of all outputs on the evaluation data together, in dB."""

    def output(x: Tensor) -> Tensor:
        y = run(x)
        return y[0] if isinstance(y, tuple) else y

    return sqnr_of_all((task.model(x), output(x)) for x in task.evaluation)


def main() -> None:
    parser = make_parser("benchmarks.accuracy.error_sources", __doc__)
    add_networks(parser)
    parser.add_argument("--config", choices=list(octavo.PRESETS), default="balanced")
    add_markdown(parser)
    options = parser.parse_args()
    table = make_table(COLUMNS, texts=(0, 4, 5))
    for name, task in available(options.networks, Console()):
        table.add_row(*row(name, task, octavo.PRESETS[options.config]))
    print_tables([table], options.markdown)


if __name__ == "__main__":
    main()
