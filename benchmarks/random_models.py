"""Models with random weights that behave somewhat like trained ones, and random inputs for them."""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterable, Iterator

import torch
import torchvision
from torch import Tensor, nn

MODELS = [
    *("resnet50", "mobilenet_v2", "mobilenet_v3_large", "efficientnet_b0", "convnext_tiny"),
    *("vit_b_16", "swin_t", "densenet121", "regnet_y_400mf", "bert_base"),
]
TOKENS = 128  # in a text for bert_base
WORDS = 30522  # in its vocabulary


def model_name(text: str) -> str:
    """An argument of a command line: one of torchvision's models, or bert_base."""
    if text not in MODELS and text not in torchvision.models.list_models():
        raise argparse.ArgumentTypeError(f"unknown model {text}: not one of torchvision's")
    return text


def add_models(parser: argparse.ArgumentParser) -> None:
    """Let a command take the names of models; those of `MODELS` by default."""
    parser.add_argument(
        "models", nargs="*", type=model_name, default=MODELS, help="torchvision's, or bert_base"
    )


# ---- inputs


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


def texts(count: int, batch: int, seed: int) -> Iterator[Tensor]:
    """Random token ids."""
    generator = torch.Generator().manual_seed(seed)
    for start in range(0, count, batch):
        yield torch.randint(WORDS, (min(batch, count - start), TOKENS), generator=generator)


def inputs(model: str, count: int, batch: int, seed: int) -> Iterator[Tensor]:
    """Random inputs for one of the models, in batches."""
    make = texts if model == "bert_base" else images
    return make(count, batch, seed)


class Samples:
    """Calibration data for a model, made anew whenever it is read: it takes no memory.

    `seconds` is the time that making it has taken.
    """

    def __init__(self, model: str, count: int) -> None:
        self.model, self.count, self.seconds = model, count, 0.0

    def __iter__(self) -> Iterator[Tensor]:
        batches = inputs(self.model, self.count, batch=8, seed=1)
        while True:
            start = time.perf_counter()
            x = next(batches, None)
            self.seconds += time.perf_counter() - start
            if x is None:
                return
            yield x


# ---- models


def settle_batch_norms(model: nn.Module, calls: Iterable[tuple[tuple, dict]]) -> nn.Module:
    """Statistics from data, so that activations of random weights stay of one size.

    The bias is positive, so that activations mostly pass: if half of each layer's values were cut
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
    """A model with random weights that behaves somewhat like a trained one."""
    torch.manual_seed(0)
    if name == "bert_base":
        return BertEncoder().eval()
    model = torchvision.models.get_model(name, weights=None).eval()
    for module in model.modules():
        if isinstance(module, nn.Linear) and not module.weight.any():  # the heads of transformers
            nn.init.normal_(module.weight, std=0.02)
    return settle_batch_norms(model, (((x,), {}) for x in Samples(name, 32)))


class BertEncoder(nn.Module):
    """BERT-base: token ids of shape (N, 128) in, the last layer's (N, 128, 768) out."""

    def __init__(self) -> None:
        import transformers

        super().__init__()
        config = transformers.BertConfig(vocab_size=WORDS, attn_implementation="sdpa")
        self.bert = transformers.BertModel(config, add_pooling_layer=False)

    def forward(self, ids: Tensor) -> Tensor:
        return self.bert(input_ids=ids).last_hidden_state


def tiny_model() -> nn.Module:
    """Something to make every peer import and initialise what it needs."""
    layers = [nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.AdaptiveAvgPool2d(1)]
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(8, 4)).eval()
