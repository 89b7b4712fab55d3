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
SEQUENCES = ["bert_base", "distilbert", "lstm_512", "crnn"]  # that are not torchvision's
TOKENS = 128  # in a text for bert_base or distilbert
WORDS = 30522  # in their vocabulary
STEPS = 50  # of a sequence for lstm_512


def model_name(text: str) -> str:
    """An argument of a command line: one of torchvision's models, or of `SEQUENCES`."""
    if text not in SEQUENCES and text not in torchvision.models.list_models():
        known = ", ".join(SEQUENCES)
        raise argparse.ArgumentTypeError(f"unknown model {text}: not torchvision's, nor {known}")
    return text


def add_models(parser: argparse.ArgumentParser) -> None:
    """Let a command take the names of models; those of `MODELS` by default."""
    parser.add_argument(
        "models",
        nargs="*",
        type=model_name,
        default=MODELS,
        help=f"torchvision's, or {', '.join(SEQUENCES)}",
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


def sequences(count: int, batch: int, seed: int) -> Iterator[Tensor]:
    """Random features that change slowly from step to step, as those of sound do."""
    generator = torch.Generator().manual_seed(seed)
    for start in range(0, count, batch):
        steps = torch.randn(min(batch, count - start), STEPS, 512, generator=generator)
        yield steps + 2 * nn.functional.avg_pool1d(steps.mT, 9, 1, 4).mT


def lines(count: int, batch: int, seed: int) -> Iterator[Tensor]:
    """Random grey images of 32 x 128, the size of a word in a line of text."""
    for x in images(count, batch, seed, size=128):
        yield x[:, :1, :32].contiguous()


INPUTS = {"bert_base": texts, "distilbert": texts, "lstm_512": sequences, "crnn": lines}


def inputs(model: str, count: int, batch: int, seed: int) -> Iterator[Tensor]:
    """Random inputs for one of the models, in batches."""
    return INPUTS.get(model, images)(count, batch, seed)


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
    if name in OWN:
        model = OWN[name]().eval()
        return settle_batch_norms(model, (((x,), {}) for x in Samples(name, 32)))
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


class DistilBert(nn.Module):
    """Half as many layers: token ids of shape (N, 128) in, (N, 128, 768) out."""

    def __init__(self) -> None:
        import transformers

        super().__init__()
        config = transformers.DistilBertConfig(vocab_size=WORDS, attn_implementation="sdpa")
        self.bert = transformers.DistilBertModel(config)

    def forward(self, ids: Tensor) -> Tensor:
        return self.bert(input_ids=ids).last_hidden_state


class Lstm(nn.Module):
    """One layer of 512 units: (N, 50, 512) in and out."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.LSTM(512, 512, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x)[0]


class Crnn(nn.Module):
    """Reads a line of text (Shi, Bai and Yao 2015): (N, 1, 32, 128) in, (33, N, 37) out."""

    def __init__(self) -> None:
        super().__init__()

        def block(before: int, after: int, *pool: int) -> nn.Sequential:
            layers = [nn.Conv2d(before, after, 3, padding=1), nn.BatchNorm2d(after), nn.ReLU()]
            return nn.Sequential(*layers, *([nn.MaxPool2d(pool)] if pool else []))

        self.features = nn.Sequential(
            *(block(1, 64, 2, 2), block(64, 128, 2, 2), block(128, 256), block(256, 256, 2, 1)),
            *(block(256, 512), block(512, 512, 2, 1), nn.Conv2d(512, 512, 2, padding=(0, 1))),
            *(nn.BatchNorm2d(512), nn.ReLU()),
        )
        self.lstm = nn.LSTM(512, 256, 2, bidirectional=True)
        self.head = nn.Linear(512, 37)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.lstm(self.features(x).squeeze(2).permute(2, 0, 1))[0])


OWN: dict[str, type[nn.Module]] = {
    "bert_base": BertEncoder,
    "distilbert": DistilBert,
    "lstm_512": Lstm,
    "crnn": Crnn,
}


def tiny_model() -> nn.Module:
    """Something to make every peer import and initialise what it needs."""
    layers = [nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.AdaptiveAvgPool2d(1)]
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(8, 4)).eval()
