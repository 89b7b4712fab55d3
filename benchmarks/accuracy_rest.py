"""What is left of the error in the networks of accuracy.py: weights or activations, and which.

    python benchmarks/accuracy_rest.py                      # needs what accuracy.py needs
    python benchmarks/accuracy_rest.py mobilenet_v2 --config fast

SQNR of the outputs on the evaluation data: of the int8 model, of one with int8 weights only, and of
one with int8 activations only, each tuned as the configuration says. Then which of the activations,
estimated as in `octavo/tune/effects.py` on the samples tuned on: how many of them bring half of the
noise, and the dearest, by the module that computes it, with its part.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from accuracy_nets import NETS, Task, tasks
from peer_table import tell
from rich import box
from rich.table import Table
from torch import Tensor, fx

import octavo
from octavo.calibrate.data import calls
from octavo.graph import ops
from octavo.graph.names import full_name, own_path
from octavo.graph.tensors import attribute, new_attribute
from octavo.metrics import Noise
from octavo.quantizer import Quantizer
from octavo.search.sensitivity import rounding_noise
from octavo.stages import Calibration
from octavo.tune.biases import correct_biases
from octavo.tune.layerwise import tune_layers
from octavo.tune.rounding import round_weights

COLUMNS = ("network", "int8 dB", "weights dB", "activations dB", "half of the latter in", "dearest")


def in_part(calibration: Calibration, weights: bool) -> fx.GraphModule:
    """The graph with int8 weights only, or with int8 activations only; tuned."""
    quantizer = calibration.quantizer
    config, graph = quantizer.config, quantizer.quantize()
    if weights:
        for node in graph.graph.nodes:
            rounds = node.target in (ops.quantize, *ops.IDENTITIES)
            if rounds or (node.target is ops.dequantize and node.args[0].op != "get_attr"):
                node.replace_all_uses_with(node.args[0])
    else:
        for rule in quantizer.weighted_sites():
            layer = quantizer.conversion.copies[rule.operator]
            for weight in rule.weights():
                value = attribute(quantizer.module, weight.target).detach()
                with graph.graph.inserting_before(layer):
                    path = own_path("unrounded", layer.name, weight.name)
                    new = new_attribute(graph, path, value)
                layer.replace_input_with(layer.args[rule.operator.args.index(weight)], new)
    graph.graph.eliminate_dead_code()
    graph.recompile()
    methods = [round_weights] if weights and config.round_weights else []
    methods += [correct_biases] if config.correct_biases else []
    tune_layers(quantizer, graph, calibration.evidence.tuning, *methods)
    return graph


@torch.no_grad()
def sqnr(task: Task, run: Callable[[Tensor], Any]) -> str:
    total = Noise()
    for x in task.evaluation:
        y = run(x)
        total.add(task.model(x), y[0] if isinstance(y, tuple) else y)
    return f"{total.sqnr:.1f}"


def row(name: str, task: Task, config: octavo.Config) -> tuple[str, ...]:
    quantizer = Quantizer(task.model, config=config)
    batches = list(calls(task.calibration, task.model))
    with torch.no_grad():
        quantizer.capture(*batches[:2])
        calibration = Calibration(quantizer)
        for call in batches:
            calibration.observe(call)
        whole = calibration.finish()
    quantizer = calibration.quantizer  # of the equalized graph, where that was kept
    parts = [in_part(calibration, weights) for weights in (True, False)]
    quantizer.quantize()
    of_values, _, _ = rounding_noise(quantizer, calibration.evidence.tuning)
    noise = of_values.most_common()
    total, so_far, half = sum(n for _, n in noise), 0.0, 0
    while so_far < total / 2:
        so_far += noise[half][1]
        half += 1
    nodes = {n.name: n for n in quantizer.graph.nodes}
    where = full_name(nodes[noise[0][0]])
    return (
        name,
        *(sqnr(task, graph) for graph in (whole, *parts)),
        f"{half} of {len(noise)}",
        f"{where} {noise[0][1] / total:.0%}",
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("nets", nargs="*", default=list(NETS), help=", ".join(NETS))
    parser.add_argument("--config", choices=list(octavo.PRESETS), default="balanced")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="write the table")
    options = parser.parse_args()
    table = Table(box=box.MARKDOWN)
    for i, column in enumerate(COLUMNS):
        table.add_column(column, justify="right" if 0 < i < 4 else "left", no_wrap=True)
    for name, task in tasks(options.nets):
        if isinstance(task, str):
            print(f"{name} left out, {task}")
        else:
            table.add_row(*row(name, task, octavo.PRESETS[options.config]))
    tell([table], options.markdown)


if __name__ == "__main__":
    main()
