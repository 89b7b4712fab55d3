"""What Octavo does to real trained nets; see `python examples/demo.py --help`."""

import fashion_mnist
import imagenet
import typer
from compare import console


def main() -> None:
    """Quantize trained nets to int8 and compare them with float.

    Four Fashion-MNIST nets, measured on all 10,000 test images (alone:
    examples/fashion_mnist.py), then EfficientNet-Lite0, pretrained on ImageNet, on photos
    (alone: examples/imagenet.py). Takes one to two minutes on one core.
    """
    fashion_mnist.run()
    console.print()
    imagenet.run()


if __name__ == "__main__":
    typer.run(main)
