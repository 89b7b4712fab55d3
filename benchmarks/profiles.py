"""Where OpenVINO spends the time of Octavo's and of NNCF's int8 models, by kind of operator.

    pip install -e .[bench]
    python benchmarks/profiles.py resnet50 mobilenet_v2 --markdown profiles.md

Both are compiled alike, for one thread and batch 1, with OpenVINO's own clock; calls alternate.
Each cell is the time in ms of all operators of a kind, in the call that took least.
"int8" are those that read integers. What the clock itself costs is in the sums.
"""

from __future__ import annotations

import argparse
from collections import Counter
from pathlib import Path
from typing import Any

import openvino
import torch
from peer_models import MODELS, Samples, inputs, random_model
from peer_table import tell
from peer_tools import quantize_nncf, warm_up
from rich import box
from rich.table import Table

import octavo

ROUNDS = 40
SETTINGS = {
    "PERFORMANCE_HINT": "LATENCY",
    "INFERENCE_NUM_THREADS": "1",
    "PERF_COUNT": "YES",
    "INFERENCE_PRECISION_HINT": "f32",
}


def compiled(model: openvino.Model, x: torch.Tensor, **changes: str) -> Any:
    fixed = model.clone()
    fixed.reshape(list(x.shape))
    return openvino.Core().compile_model(fixed, "CPU", SETTINGS | changes).create_infer_request()


def times(request: Any, x: torch.Tensor) -> Counter[str]:
    """Milliseconds of one call by kind of operator."""
    request.infer([x.numpy()], share_inputs=True)
    spent: Counter[str] = Counter()
    for node in request.get_profiling_info():
        if node.status.name == "EXECUTED":
            integers = node.exec_type.endswith(("I8", "i8", "u8", "U8"))
            kind = f"{node.node_type}{' int8' if integers else ''}"
            spent[kind] += 1e3 * node.real_time.total_seconds()  # type: ignore[assignment]
    return spent


def profile(name: str) -> dict[str, Counter[str]]:
    """Least times by kind, of each of the two."""
    model, data, x = random_model(name), list(Samples(name, 16)), next(inputs(name, 1, 1, seed=2))
    ours = octavo.quantize(model, data, config="fast", progress=False).compile().model
    requests = {
        "Octavo": compiled(ours, x),
        # as NNCF's users run it: OpenVINO may choose bfloat16 for what is not int8
        "NNCF": compiled(quantize_nncf(model, data), x, INFERENCE_PRECISION_HINT="dynamic"),
    }
    least: dict[str, Counter[str]] = {}
    for _ in range(ROUNDS):
        for peer, request in requests.items():
            spent = times(request, x)
            if peer not in least or spent.total() < least[peer].total():
                least[peer] = spent
    return least


def table(name: str, least: dict[str, Counter[str]]) -> Table:
    made = Table(title=name, box=box.MARKDOWN)
    for i, column in enumerate(("operators", *least)):
        made.add_column(column, justify="right" if i else "left")
    kinds = sorted(set().union(*least.values()), key=lambda k: -max(c[k] for c in least.values()))
    total = max(c.total() for c in least.values())
    shown = [k for k in kinds if max(c[k] for c in least.values()) > 0.01 * total]
    for kind in shown:
        made.add_row(kind, *(f"{c[kind]:.2f}" for c in least.values()))
    rest = [c.total() - sum(c[k] for k in shown) for c in least.values()]
    made.add_row("others", *(f"{r:.2f}" for r in rest))
    made.add_row("all", *(f"{c.total():.2f}" for c in least.values()))
    return made


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("models", nargs="*", default=MODELS, help="torchvision's, or bert_base")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="write the tables")
    options = parser.parse_args()
    warm_up(["nncf"])
    tell([table(name, profile(name)) for name in options.models], options.markdown, width=100)


if __name__ == "__main__":
    main()
