"""Octavo against its peers: latency, time to a ready model, accuracy and memory, in one process.

    pip install -e .[bench]
    python benchmarks/peers.py                               # four models, batch 1 and 8
    python benchmarks/peers.py resnet18 --batch 1 --peers octavo nncf
    python benchmarks/peers.py --json peers.json --markdown peers.md
    python benchmarks/peers.py --memory                      # peak memory of quantizing resnet50

Models are torchvision's with random weights, see `random_model`: their SQNR compares the peers,
it is not that of trained models. Every peer gets the same images, inputs and threads (all cores).
Calls alternate: in each round every peer, in random order, is called a few times, so that whatever
else slows the machine down hits all alike. "ready" is the time from the float model in memory to
its first output, imports left out: conversion, calibration, compilation.
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import dataclasses
import gc
import importlib.metadata
import io
import json
import logging
import math
import multiprocessing
import os
import platform
import random
import resource
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import torchvision
from rich import box
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

import octavo

MODELS = ["resnet50", "mobilenet_v2", "mobilenet_v3_large", "efficientnet_b0"]
THREADS = os.cpu_count() or 1
UNTIMED_CALLS = 3  # at the start of a peer's turn: caches refilled, the last peer's threads asleep
COLUMNS = ["model", "peer", "median ms", "min ms", "Octavo / peer", "ready s", "SQNR dB"]

Call = Callable[[], Any]


# ---- models and data


def images(count: int, batch: int, seed: int, size: int = 224) -> Iterator[Tensor]:
    """Random images with, like photos, more contrast in coarse than in fine structure."""
    generator = torch.Generator().manual_seed(seed)
    for start in range(0, count, batch):
        n = min(batch, count - start)
        total = torch.zeros(n, 3, size, size)
        for grain, contrast in ((56, 1.0), (16, 1.0), (4, 0.7), (2, 0.5), (1, 0.3)):
            few = torch.randn(n, 3, -(-size // grain), -(-size // grain), generator=generator)
            total += contrast * nn.functional.interpolate(few, size=(size, size), mode="bicubic")
        yield total


def calibration_images(count: int) -> Iterator[Tensor]:
    return images(count, batch=8, seed=1)


def settle_batch_norms(model: nn.Module, calls: Iterable[tuple[tuple, dict]]) -> nn.Module:
    """Statistics from data, so that activations of random weights stay of one size.

    The bias is positive, so that activations mostly pass: were half of each layer's values cut
    off, noise would grow from layer to layer until little of the signal was left.
    """
    for module in model.eval().modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            if module.affine:
                module.bias.fill_(0.5)
            module.momentum = None  # the mean over all batches
            module.train()
    for args, kwargs in calls:
        model(*args, **kwargs)
    return model.eval()


@torch.no_grad()
def random_model(name: str) -> nn.Module:
    """A torchvision model with random weights that behaves somewhat like a trained one."""
    torch.manual_seed(0)
    model = torchvision.models.get_model(name, weights=None).eval()
    for module in model.modules():
        if isinstance(module, nn.Linear) and not module.weight.any():  # the heads of transformers
            nn.init.normal_(module.weight, std=0.02)
    return settle_batch_norms(model, (((x,), {}) for x in calibration_images(32)))


def tiny_model() -> nn.Module:
    """Something to make every peer import and initialise what it needs."""
    layers = [nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.AdaptiveAvgPool2d(1)]
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(8, 4)).eval()


# ---- the peers: `prepare` makes a model, `compile` a call of it with one input


class Peer(NamedTuple):
    title: str
    prepare: Callable[[nn.Module, list[Tensor]], Any]
    compile: Callable[[Any, Tensor], Call]


def keep_float(model: nn.Module, data: list[Tensor]) -> nn.Module:
    return model


def call_torch(model: nn.Module, x: Tensor) -> Call:
    return partial(model, x)


def quantize_octavo(model: nn.Module, data: list[Tensor]) -> octavo.QuantizedModel:
    return octavo.quantize(model, data, progress=False)


def compile_octavo(model: octavo.QuantizedModel, x: Tensor) -> Call:
    return partial(model.compile(threads=THREADS), x)


@torch.no_grad()
def convert_openvino(model: nn.Module, data: list[Tensor]) -> Any:
    import openvino

    shape = openvino.PartialShape([-1, *data[0].shape[1:]])
    return openvino.convert_model(model, example_input=data[0], input=[shape])


def compile_openvino(model: Any, x: Tensor, **settings: str) -> Call:
    import openvino

    fixed = model.clone()
    fixed.reshape(list(x.shape))
    settings |= {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_NUM_THREADS": str(THREADS)}
    request = openvino.Core().compile_model(fixed, "CPU", settings).create_infer_request()
    infer = partial(request.infer, [x.numpy()], share_inputs=True, share_outputs=True)
    return lambda: infer()[0]


def compile_openvino_float32(model: Any, x: Tensor) -> Call:
    """Not bfloat16, which OpenVINO would choose for a float model where the processor has it."""
    return compile_openvino(model, x, INFERENCE_PRECISION_HINT="f32")


def quantize_nncf(model: nn.Module, data: list[Tensor]) -> Any:
    import nncf

    batches = nncf.Dataset([x.numpy() for x in data])
    return nncf.quantize(convert_openvino(model, data), batches)


def quantize_onnxruntime(model: nn.Module, data: list[Tensor]) -> bytes:
    from onnxruntime.quantization import QuantType, quantize_static

    with tempfile.TemporaryDirectory() as folder:
        exported, quantized = Path(folder, "float.onnx"), Path(folder, "int8.onnx")
        batch = ({0: torch.export.Dim.DYNAMIC},)
        names = {"input_names": ["x"], "dynamic_shapes": batch, "external_data": False}
        torch.onnx.export(model, (data[0],), exported, dynamo=True, verbose=False, **names)
        # unsigned activations: several times faster on x86 than signed, the default
        types = {"activation_type": QuantType.QUInt8, "weight_type": QuantType.QInt8}
        source, reader = preprocessed_onnx(exported), OnnxReader(data)
        quantize_static(source, quantized, reader, per_channel=True, **types)
        return quantized.read_bytes()


def preprocessed_onnx(exported: Path) -> Path:
    """ONNX Runtime's own preparation for quantizing, or the file as it is where that fails."""
    from onnxruntime.quantization.shape_inference import quant_pre_process

    prepared = exported.with_name("prepared.onnx")
    try:
        quant_pre_process(exported, prepared)
    except Exception:
        return exported
    return prepared


class OnnxReader:
    """Calibration data as ONNX Runtime reads it."""

    def __init__(self, data: list[Tensor]) -> None:
        self.rest = iter(data)

    def get_next(self) -> dict[str, np.ndarray] | None:
        x = next(self.rest, None)
        return None if x is None else {"x": x.numpy()}


def compile_onnxruntime(model: bytes, x: Tensor) -> Call:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = THREADS
    # threads that wait busily after a call would slow down the next peer
    options.add_session_config_entry("session.force_spinning_stop", "1")
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    run = partial(session.run, None, {"x": x.numpy()})
    return lambda: run()[0]


@torch.no_grad()
def quantize_torch_ao(model: nn.Module, data: list[Tensor]) -> nn.Module:
    from torch.ao.quantization import get_default_qconfig_mapping
    from torch.ao.quantization.quantize_fx import convert_fx, prepare_fx

    torch.backends.quantized.engine = "x86"
    mapping = get_default_qconfig_mapping("x86")
    prepared = prepare_fx(copy.deepcopy(model), mapping, (data[0],))
    for x in data:
        prepared(x)
    return convert_fx(prepared)


PEERS = {
    "eager": Peer("PyTorch float", keep_float, call_torch),
    "openvino": Peer("OpenVINO float", convert_openvino, compile_openvino_float32),
    "octavo": Peer("Octavo", quantize_octavo, compile_octavo),
    "nncf": Peer("NNCF + OpenVINO", quantize_nncf, compile_openvino),
    "onnxruntime": Peer("ONNX Runtime", quantize_onnxruntime, compile_onnxruntime),
    "torch.ao": Peer("torch.ao FX", quantize_torch_ao, call_torch),
}


# ---- measuring


@dataclass
class Result:
    """One peer on one model and batch size; None where there is no figure."""

    model: str
    batch: int
    peer: str
    error: str = ""
    ready_s: float | None = None
    sqnr_db: float | None = None
    median_ms: float | None = None
    min_ms: float | None = None
    octavo_file_mb: float | None = None
    times_ms: list[float] = field(default_factory=list)


class Outcome(NamedTuple):
    value: Any = None
    seconds: float = math.nan
    error: str = ""


def attempt(work: Callable[..., Any], *args: Any) -> Outcome:
    """The value of `work(*args)` with the seconds it took, or what went wrong, in one line."""
    start = time.perf_counter()
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            value = work(*args)
    except Exception as e:
        line = next(iter(str(e).strip().splitlines()), "")
        return Outcome(error=f"{type(e).__name__}: {line}"[:120])
    return Outcome(value, time.perf_counter() - start)


def first_call(peer: Peer, prepared: Any, x: Tensor) -> tuple[Call, Tensor]:
    """The compiled call and a copy of its first output."""
    call = peer.compile(prepared, x)
    with torch.inference_mode():
        return call, torch.as_tensor(call()).clone()


def warm_up(peers: list[str]) -> None:
    """Let each peer do its imports, so that no one's `ready` pays for them."""
    data = list(images(16, batch=8, seed=0, size=32))
    for peer in map(PEERS.get, peers):
        attempt(lambda p: first_call(p, p.prepare(tiny_model(), data), data[0]), peer)


def benchmark(name: str, options: argparse.Namespace) -> list[Result]:
    """Every peer's results on one model: prepared once, then timed at each batch size."""
    model, data = random_model(name), list(calibration_images(options.images))
    prepared = {peer: attempt(PEERS[peer].prepare, model, data) for peer in options.peers}
    results: list[Result] = []
    for batch in options.batch:
        x = next(images(batch, batch, seed=2))
        ready = [make_ready(Result(name, batch, p), o, model, x) for p, o in prepared.items()]
        calls = {result.peer: call for result, call in ready if call is not None}
        times = time_alternately(calls, options.rounds, options.calls)
        for result, call in ready:
            if call is not None:
                result.times_ms = times[result.peer]
                result.median_ms = statistics.median(result.times_ms)
                result.min_ms = min(result.times_ms)
            results.append(result)
    return results


def make_ready(
    result: Result, prepared: Outcome, model: nn.Module, x: Tensor
) -> tuple[Result, Call | None]:
    """Compile for the shape of `x`: the result with all but the times, and the call to time."""
    first = prepared
    if not prepared.error:
        first = attempt(first_call, PEERS[result.peer], prepared.value, x)
    if first.error:
        result.error = first.error
        return result, None
    call, output = first.value
    if prepared.value is not model:
        result.ready_s = prepared.seconds + first.seconds
        with torch.inference_mode():
            result.sqnr_db = octavo.sqnr(model(x), output)
    if isinstance(prepared.value, octavo.QuantizedModel):
        result.octavo_file_mb = file_megabytes(prepared.value)
    return result, call


def file_megabytes(model: octavo.QuantizedModel) -> float:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "model.octavo")
        octavo.save(model, path)
        return path.stat().st_size / 1e6


def time_alternately(calls: dict[str, Call], rounds: int, repeats: int) -> dict[str, list[float]]:
    """Milliseconds of each call, by peer."""
    times: dict[str, list[float]] = {peer: [] for peer in calls}
    order = random.Random(0)
    gc.collect()
    gc.disable()
    with torch.inference_mode():
        for _ in range(rounds):
            for peer in order.sample(list(calls), len(calls)):
                call = calls[peer]
                for _ in range(UNTIMED_CALLS):
                    call()
                for _ in range(repeats):
                    start = time.perf_counter()
                    call()
                    times[peer].append(1e3 * (time.perf_counter() - start))
    gc.enable()
    return times


def peak_memory(count: int) -> float:
    """Peak memory of this process, in MB, once it has quantized resnet50 with `count` images."""
    torch.set_num_threads(THREADS)
    octavo.quantize(random_model("resnet50"), calibration_images(count), progress=False)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6  # Linux: in KiB


# ---- telling


def machine() -> dict[str, str]:
    """What the figures depend on: processor, cores and versions."""
    facts = {"cpu": cpu_model(), "cores": str(THREADS), "octavo": octavo.__version__}
    for package in ("torch", "torchvision", "openvino", "nncf", "onnxruntime"):
        try:
            facts[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            facts[package] = "missing"
    return facts


def cpu_model() -> str:
    with contextlib.suppress(OSError), open("/proc/cpuinfo") as lines:
        for line in lines:
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def as_line(facts: dict[str, str]) -> str:
    return ", ".join(f"{name} {value}" for name, value in facts.items())


def table(results: list[Result], style: box.Box) -> Table:
    """Results of one batch size; the ratio is below 1 where Octavo is faster."""
    made = Table(box=style, show_edge=style is box.MARKDOWN)
    for i, column in enumerate(COLUMNS):
        made.add_column(column, justify="left" if i < 2 else "right", no_wrap=i < 2)
    ours = {r.model: r.median_ms for r in results if r.peer == "octavo"}
    for r in results:
        cells = [f"fails: {r.error}"]
        if r.median_ms is not None:
            ratio = ours[r.model] / r.median_ms if ours.get(r.model) else None
            cells = [figure(v, 2) for v in (r.median_ms, r.min_ms, ratio)]
            cells += [figure(v, 1) for v in (r.ready_s, r.sqnr_db)]
        made.add_row(r.model, PEERS[r.peer].title, *cells)
    return made


def figure(value: float | None, digits: int) -> str:
    return "" if value is None else f"{value:.{digits}f}"


def as_text(facts: dict[str, str], results: list[Result], style: box.Box, width: int) -> str:
    """The machine, a table for each batch size, and the sizes of Octavo's files."""
    console = Console(file=io.StringIO(), width=width)
    sizes = {r.model: f"{r.octavo_file_mb:.1f} MB" for r in results if r.octavo_file_mb}
    for batch in dict.fromkeys(r.batch for r in results):
        console.print(f"\nBatch {batch}\n")
        console.print(table([r for r in results if r.batch == batch], style))
    lines = [as_line(facts), *console.file.getvalue().splitlines()]
    lines += ["", f"Octavo's files: {as_line(sizes)}"] if sizes else []
    text = "\n".join(line.rstrip() for line in lines)
    return text.replace("\n\n\n", "\n\n") + "\n"


# ---- the command


def model_name(text: str) -> str:
    torchvision.models.get_model_builder(text)  # a ValueError, which argparse tells, if unknown
    return text


def arguments() -> argparse.Namespace:
    summary, _, usage = (__doc__ or "").partition("\n\n")
    parser = argparse.ArgumentParser(
        description=summary, epilog=usage, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "models", nargs="*", type=model_name, default=MODELS, help="names of torchvision models"
    )
    parser.add_argument("--batch", nargs="+", type=int, default=[1, 8], help="batch sizes")
    parser.add_argument("--peers", nargs="+", choices=list(PEERS), default=list(PEERS))
    parser.add_argument("--images", type=int, default=32, help="calibration images")
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--calls", type=int, default=10, help="timed calls of a peer in a round")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="write the tables")
    parser.add_argument("--memory", action="store_true", help="measure memory instead of time")
    return parser.parse_args()


def compare_memory() -> dict[int, float]:
    """Peak memory by number of images, each measured in a process of its own."""
    counts = (64, 1024)
    with multiprocessing.get_context("spawn").Pool(1, maxtasksperchild=1) as pool:
        peaks = dict(zip(counts, pool.map(peak_memory, counts, chunksize=1), strict=True))
    for count, peak in peaks.items():
        print(f"resnet50 quantized with {count:,} images: peak {peak:,.0f} MB")
    print(f"difference: {peaks[1024] - peaks[64]:,.0f} MB")
    return peaks


def compare_peers(facts: dict[str, str], options: argparse.Namespace) -> list[dict]:
    console = Console()
    warm_up(options.peers)
    results: list[Result] = []
    for name in options.models:
        with console.status(f"measuring {name}"):
            results += benchmark(name, options)
    print(as_text(facts, results, box.SIMPLE_HEAD, max(console.width, 100)), end="")
    if options.markdown:
        options.markdown.write_text(as_text(facts, results, box.MARKDOWN, 200))
    return [dataclasses.asdict(r) for r in results]


def main() -> None:
    options, facts = arguments(), machine()
    logging.disable(logging.WARNING)
    warnings.simplefilter("ignore")
    warnings.simplefilter("always", octavo.CollapseWarning)  # it tells of sites left float
    torch.set_num_threads(THREADS)
    figures: dict[str, Any] = {"machine": facts}
    if options.memory:
        print(as_line(facts))
        figures["peak_memory_mb"] = compare_memory()
    else:
        figures["results"] = compare_peers(facts, options)
    if options.json:
        options.json.write_text(json.dumps(figures))


if __name__ == "__main__":
    main()
