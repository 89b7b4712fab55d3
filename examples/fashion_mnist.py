"""Part 1 of the demo: four trained Fashion-MNIST nets, int8 against float."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import typer
from compare import (
    Speed,
    agreement,
    console,
    make_table,
    outputs,
    print_notes,
    quantize,
    size,
    speed,
)
from fashion import nets

CALIBRATION_IMAGES = 512


@dataclass(frozen=True)
class Result:
    """One net's figures; accuracies and agreement are shares."""

    name: str
    images: int
    float_accuracy: float
    int8_accuracy: float
    agreement: float
    size: str
    speed: Speed

    def cells(self) -> tuple[str, ...]:
        shares = (self.float_accuracy, self.int8_accuracy, self.agreement)
        return self.name, *(f"{s:.2%}" for s in shares), self.size, *self.speed.cells()


def compare_net(name: str, images: int | None) -> Result:
    """Quantize one net and measure it against itself in float."""
    console.print(f"[bold]{name}[/bold]")
    net = nets.load(name)
    q, int8_net = quantize(net, nets.data("calib", CALIBRATION_IMAGES)[0], batch=32)
    x, labels = nets.data("test", images)
    float_out = outputs(net, x, 500, "float on the test images")
    int8_out = outputs(int8_net, x, 500, "int8 on the test images")
    right = [(y.argmax(1) == labels).float().mean().item() for y in (float_out, int8_out)]
    timed = speed(net, int8_net, x[:1])
    return Result(name, len(x), *right, agreement(float_out, int8_out), size(q), timed)


def print_results(results: list[Result]) -> None:
    title = f"Fashion-MNIST, {results[0].images:,} test images"
    t = make_table(title, "net", "float", "int8", "agree", "MB", "ms", "faster")
    for r in results:
        t.add_row(*r.cells())
    console.print(t)
    print_notes("float, int8: accuracy; agree: same prediction in both", "MB: all tensors")


def run(names: list[str] | None = None, images: int | None = None) -> None:
    """Compare the nets, all four by default, and print one table."""
    print_results([compare_net(name, images) for name in names or nets.NETS])


def main(
    names: Annotated[
        list[str] | None, typer.Argument(help=f"Which of {', '.join(nets.NETS)}; default all.")
    ] = None,
    images: Annotated[
        int, typer.Option(min=1, max=10_000, help="How many of the test images.")
    ] = 10_000,
) -> None:
    """Quantize trained Fashion-MNIST nets and compare accuracy, size and speed with float."""
    for name in names or []:
        if name not in nets.NETS:
            raise typer.BadParameter(f"{name!r}: choose from {', '.join(nets.NETS)}")
    run(names, images)


if __name__ == "__main__":
    typer.run(main)
