"""Small networks of kinds that model libraries have few of."""

from __future__ import annotations

import dataclasses
from typing import Any

import torch
from torch import Tensor, nn


def conv_block(i: int, o: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(i, o, 3, padding=1), nn.BatchNorm2d(o), nn.ReLU())


class UNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.down = nn.ModuleList(conv_block(i, o) for i, o in ((3, 16), (16, 32), (32, 64)))
        self.up = nn.ModuleList(nn.ConvTranspose2d(o, o // 2, 2, 2) for o in (64, 32))
        self.merge = nn.ModuleList(conv_block(i, i // 2) for i in (64, 32))
        self.head = nn.Conv2d(16, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        skips = []
        for i, block in enumerate(self.down):
            x = block(x if i == 0 else nn.functional.max_pool2d(x, 2))
            skips.append(x)
        for up, merge, skip in zip(self.up, self.merge, skips[1::-1], strict=True):
            x = merge(torch.cat([up(x), skip], 1))
        return self.head(x)


class TemporalConvolutions(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            nn.Conv1d(16 if i else 4, 16, 3, dilation=2**i) for i in range(4)
        )

    def forward(self, x: Tensor) -> Tensor:
        for i, layer in enumerate(self.layers):
            y = layer(nn.functional.pad(x, (2 * 2**i, 0))).relu()
            x = y if i == 0 else x + y
        return x


class Recurrent(nn.Module):
    def __init__(self, kind: type[nn.RNNBase], bidirectional: bool = False) -> None:
        super().__init__()
        self.conv = nn.Conv1d(4, 32, 5, padding=2)
        self.rnn = kind(32, 32, 2, batch_first=True, bidirectional=bidirectional)
        self.head = nn.Linear(32 * (1 + bidirectional), 5)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x).relu().transpose(1, 2)
        return self.head(self.rnn(y)[0])


class Cells(nn.Module):
    """Steps of an LSTM cell, with its state handed in and out."""

    def __init__(self) -> None:
        super().__init__()
        self.cell, self.head = nn.LSTMCell(4, 32), nn.Linear(32, 5)

    def forward(self, x: Tensor, state: tuple[Tensor, Tensor]) -> tuple[Tensor, Any]:
        for step in x.unbind(2):
            state = self.cell(step, state)
        return self.head(state[0]), state


@dataclasses.dataclass
class Scores:
    near: Tensor
    far: list[Tensor]


torch.export.register_dataclass(Scores, serialized_type_name="architectures.Scores")


class Siamese(nn.Module):
    """Two inputs, one tower, a dataclass out; the second input by keyword only."""

    def __init__(self) -> None:
        super().__init__()
        self.tower = nn.Sequential(conv_block(3, 16), conv_block(16, 16), nn.AdaptiveAvgPool2d(4))
        self.head = nn.Linear(256, 8)

    def forward(self, left: Tensor, *, right: Tensor) -> Scores:
        a, b = (self.head(self.tower(x).flatten(1)) for x in (left, right))
        return Scores((a - b).abs(), [a, b])


class Recommender(nn.Module):
    """Embeddings of integers, summed and joined with numbers; a dict out."""

    def __init__(self) -> None:
        super().__init__()
        self.items, self.bag = nn.Embedding(100, 16), nn.EmbeddingBag(50, 16)
        self.deep = nn.Sequential(nn.Linear(40, 64), nn.ReLU(), nn.Linear(64, 32), nn.ReLU())
        self.head = nn.Linear(32, 1)

    def forward(self, item: Tensor, seen: Tensor, numbers: Tensor) -> dict[str, Tensor]:
        joined = torch.cat([self.items(item), self.bag(seen), numbers], 1)
        return {"score": self.head(self.deep(joined))[:, 0].sigmoid(), "seen": seen.float().mean(1)}


class CallCounter(nn.Module):
    """A buffer that forward updates."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(conv_block(3, 8), nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.head = nn.Linear(8, 4)
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        return self.head(self.net(x))


class Spectrum(nn.Module):
    """A spectrogram by complex arithmetic, then convolutions."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Conv1d(17, 32, 3), nn.ReLU(), nn.Conv1d(32, 8, 3))
        self.register_buffer("window", torch.hann_window(32))

    def forward(self, x: Tensor) -> Tensor:
        frames = x.unfold(1, 32, 16) * self.window
        power = torch.fft.rfft(frames).abs() ** 2
        return self.net((power + 1e-3).log().transpose(1, 2)).mean(2)


class Fourier(nn.Module):
    """Mixing of tokens by a two-dimensional Fourier transform (FNet)."""

    def __init__(self) -> None:
        super().__init__()
        self.up, self.down, self.norm = nn.Linear(16, 64), nn.Linear(64, 16), nn.LayerNorm(16)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(x + torch.fft.fft2(x).real)
        return x + self.down(nn.functional.gelu(self.up(x)))


class Einsum(nn.Module):
    """Attention written with einsum, and a mask of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv, self.out = nn.Linear(32, 96), nn.Linear(32, 32)

    def forward(self, x: Tensor, keep: Tensor) -> Tensor:
        q, k, v = self.qkv(x).unflatten(2, (3, 4, 8)).unbind(2)
        scores = torch.einsum("bqhd,bkhd->bhqk", q, k) / 8**0.5
        scores = scores.masked_fill(~keep[:, None, None], float("-inf"))
        y = torch.einsum("bhqk,bkhd->bqhd", scores.softmax(-1), v)
        return self.out(y.flatten(2))


class Attention(nn.Module):
    """nn.MultiheadAttention with keys and values of their own, and the encoder layer around it."""

    def __init__(self) -> None:
        super().__init__()
        self.cross = nn.MultiheadAttention(32, 4, batch_first=True)
        self.layer = nn.TransformerEncoderLayer(32, 4, 64, batch_first=True)

    def forward(self, x: Tensor, keep: Tensor) -> Tensor:
        y, _ = self.cross(x, x.roll(1, 0), x, key_padding_mask=~keep, need_weights=False)
        return self.layer(x + y)
