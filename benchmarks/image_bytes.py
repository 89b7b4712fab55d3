"""From bytes to logits: Octavo's model of uint8 images beside normalizing in front of NNCF's.

    pip install -e .[bench,demo]
    python -m benchmarks.image_bytes --markdown docs/measured/image-bytes.md

Images are uint8, height x width x channels, as a decoder gives them. mobilenet_v2 has random
weights and noise of 224 x 224 pixels for images; the networks of examples/fashion are trained, and
see test images. The peers get the same calibration images, normalized. They are called by turns.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

import octavo

from . import examples, random_models
from .command_line import add_json, add_markdown, make_parser
from .measuring import Call, time_alternately
from .output import machine, make_table, number, print_tables, write_json
from .peers.frameworks import compile_octavo, compile_openvino, quantize_nncf

CALIBRATION = 128
COLUMNS = ["model", "batch", "from bytes by", "median ms", "times the fastest peer", "SQNR dB"]


class Case(NamedTuple):
    """A model, how its images are normalized, and images (calibration, then for timing)."""

    name: str
    model: nn.Module
    image: octavo.Image
    calibration: Tensor
    images: Tensor


@dataclass(frozen=True)
class Result:
    model: str
    batch: int
    by: str
    milliseconds: float
    ratio: float
    sqnr: float


def cases() -> list[Case]:
    image = octavo.Image(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
    noise = torch.cat([*random_models.images(CALIBRATION + 8, 8, seed=0)])
    middle = 255 * torch.tensor(image.mean) + 40 * noise.permute(0, 2, 3, 1)
    pixels = middle.round().clamp(0, 255).to(torch.uint8).contiguous()
    model = random_models.random_model("mobilenet_v2")
    found = [Case("mobilenet_v2", model, image, pixels[:CALIBRATION], pixels[CALIBRATION:])]
    nets = examples.fashion_mnist()
    grey = octavo.Image(mean=[nets.MEAN], std=[nets.STD])
    seen, unseen = (
        grey.to_bytes(nets.data(*of)[0]) for of in (("calib", CALIBRATION), ("test", 8))
    )
    return found + [Case(f"fashion {n}", nets.load(n), grey, seen, unseen) for n in nets.NETS]


# ---- what is compared


def by_octavo(case: Case) -> Callable[[Tensor], Call]:
    batches = case.calibration.split(8)
    q = octavo.quantize(case.model, batches, inputs=case.image, progress=False)
    return partial(compile_octavo, q)


def transforms(image: octavo.Image) -> Callable[[Tensor], Tensor]:
    """torchvision's, from uint8 (N, H, W, C)."""
    from torchvision.transforms import v2

    steps = [v2.ToDtype(torch.float32, scale=True), v2.Normalize([*image.mean], [*image.std])]
    apply = v2.Compose(steps)
    return lambda pixels: apply(pixels.permute(0, 3, 1, 2)).contiguous()


def by_nncf(case: Case) -> Any:
    normalize = transforms(case.image)
    return quantize_nncf(case.model, [normalize(batch) for batch in case.calibration.split(8)])


def after_transforms(case: Case, model: Any, pixels: Tensor) -> Call:
    """NNCF's model, and torchvision's transforms in front of it."""
    normalize = transforms(case.image)
    x = normalize(pixels)
    infer = compile_openvino(model, x)

    def call() -> Any:
        x.copy_(normalize(pixels))  # infer reads x
        return infer()

    return call


def with_preprocessing(case: Case, model: Any, pixels: Tensor) -> Call:
    """NNCF's model, with OpenVINO's preprocessing as a part of it."""
    import openvino
    from openvino.preprocess import PrePostProcessor

    work = PrePostProcessor(model.clone())
    work.input().tensor().set_element_type(openvino.Type.u8).set_layout(openvino.Layout("NHWC"))
    work.input().model().set_layout(openvino.Layout("NCHW"))
    mean, std = ([255 * v for v in values] for values in (case.image.mean, case.image.std))
    work.input().preprocess().convert_element_type(openvino.Type.f32).mean(mean).scale(std)
    return compile_openvino(work.build(), pixels)


# ---- measuring


def measure(case: Case, rounds: int) -> list[Result]:
    ours, theirs = by_octavo(case), by_nncf(case)
    found = []
    for batch in (1, 8):
        pixels = case.images[:batch].contiguous()
        wanted = case.model(case.image.normalize(pixels))
        calls = {
            "Octavo": ours(pixels),
            "torchvision + NNCF": after_transforms(case, theirs, pixels),
            "OpenVINO preprocessing + NNCF": with_preprocessing(case, theirs, pixels),
        }
        noise = {n: octavo.sqnr(wanted, torch.as_tensor(call())) for n, call in calls.items()}
        times = {n: statistics.median(t) for n, t in time_alternately(calls, rounds, 20).items()}
        fastest = min(ms for name, ms in times.items() if name != "Octavo")
        found += [
            Result(case.name, batch, name, ms, ms / fastest, noise[name])
            for name, ms in times.items()
        ]
    return found


def table(results: list[Result]) -> Table:
    made = make_table(COLUMNS, texts=(0, 2))
    for r in results:
        figures = number(r.milliseconds, 3), number(r.ratio, 2), number(r.sqnr, 1)
        made.add_row(r.model, str(r.batch), r.by, *figures)
    return made


@torch.no_grad()
def main() -> None:
    parser = make_parser("benchmarks.image_bytes", __doc__)
    parser.add_argument("--rounds", type=int, default=20)
    add_json(parser)
    add_markdown(parser)
    options = parser.parse_args()
    results: list[Result] = []
    console = Console()
    for case in cases():
        with console.status(f"measuring {case.name}"):
            results += measure(case, options.rounds)
    print_tables([table(results)], options.markdown)
    write_json(options.json, machine(), results)


if __name__ == "__main__":
    main()
