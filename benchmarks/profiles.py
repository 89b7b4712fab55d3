"""Where OpenVINO spends the time of Octavo's and of NNCF's int8 models, by kind of operator.

    pip install -e .[bench]
    python -m benchmarks.profiles resnet50 mobilenet_v2 --markdown profiles.md

Both are compiled alike, for one thread and batch 1, with OpenVINO's own clock; calls alternate.
Each cell is the time in ms of all operators of a kind, in the call that took least.
"int8" are those that read integers. The cost of the clock itself is included.
"""

from __future__ import annotations

import itertools
from collections import Counter
from typing import Any

import torch
from rich.table import Table

import octavo

from .command_line import add_markdown, make_parser
from .internals import openvino_model
from .output import make_table, print_tables
from .peers.frameworks import openvino_for_shape, quantize_nncf, warm_up
from .random_models import Samples, add_models, inputs, random_model

ROUNDS = 40


def request_for(model: Any, x: torch.Tensor, precision: str) -> Any:
    """An inference request of the `openvino.Model`, for one thread and with OpenVINO's clock on."""
    hints = {"INFERENCE_PRECISION_HINT": precision}
    return openvino_for_shape(model, x, threads=1, PERF_COUNT="YES", **hints).create_infer_request()


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
    """Milliseconds by kind of operator, of the fastest call of each of the two."""
    model, data, x = random_model(name), list(Samples(name, 16)), next(inputs(name, 1, 1, seed=2))
    ours = octavo.quantize(model, data, config="fast", progress=False).compile()
    requests = {
        "Octavo": request_for(openvino_model(ours), x, "f32"),
        # as NNCF's users run it: OpenVINO may choose bfloat16 for what is not int8
        "NNCF": request_for(quantize_nncf(model, data), x, "dynamic"),
    }
    least: dict[str, Counter[str]] = {}
    for _ in range(ROUNDS):
        for peer, request in requests.items():
            spent = times(request, x)
            if peer not in least or spent.total() < least[peer].total():
                least[peer] = spent
    return least


def table(least: dict[str, Counter[str]]) -> Table:
    made = make_table(("operators", *least))
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
    parser = make_parser("benchmarks.profiles", __doc__)
    add_models(parser)
    add_markdown(parser)
    options = parser.parse_args()
    warm_up(["nncf"])
    parts = ((f"\n## {name}\n", table(profile(name))) for name in options.models)
    print_tables([*itertools.chain(*parts)], options.markdown)


if __name__ == "__main__":
    main()
