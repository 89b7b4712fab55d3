"""Random inputs of the architectures: functions of batch size, seed and length of sequence.

Length 0 stands for the usual one; inputs without a sequence ignore it.
"""

from __future__ import annotations

from typing import Any

import torch

from ..random_models import images

Call = tuple[tuple[Any, ...], dict[str, Any]]  # arguments by position, and by keyword


# ---- images and video


def image(size: int, batch: int, seed: int, length: int = 0) -> Call:
    return (next(images(batch, batch, seed, size)),), {}


def boxes(size: int, batch: int, seed: int, length: int = 0) -> Call:
    return (list(next(images(batch, batch, seed, size)).sigmoid()),), {}


def clip(size: int, batch: int, seed: int, length: int = 0) -> Call:
    frames = torch.stack([next(images(batch, batch, seed + i, size)) for i in range(16)], 2)
    return (frames.cumsum(2) / 4,), {}


def two_images(size: int, batch: int, seed: int, length: int = 0) -> Call:
    first, second = (next(images(batch, batch, seed + i, size)) for i in range(2))
    return (first.tanh(), (0.8 * first + 0.2 * second).tanh()), {}


def image_pair(batch: int, seed: int, length: int = 0) -> Call:
    (left, right), _ = two_images(32, batch, seed)
    return (left,), {"right": right}


def pixels(size: int, batch: int, seed: int, length: int = 0) -> Call:
    return (), {"pixel_values": next(images(batch, batch, seed, size))}


# ---- text


def tokens(batch: int, seed: int, length: int = 0) -> Call:
    """Sentences of 24 tokens, or `length`, of which one ends early."""
    length, generator = length or 24, torch.Generator().manual_seed(seed)
    ids = torch.randint(4, 300, (batch, length), generator=generator)
    mask = torch.ones_like(ids)
    mask[0, 2 * length // 3 :] = 0
    return (), {"input_ids": ids, "attention_mask": mask}


def text_and_image(batch: int, seed: int, length: int = 0) -> Call:
    return (), tokens(batch, seed, length)[1] | pixels(64, batch, seed)[1]


# ---- sequences and numbers


def features(name: str, shape: tuple[int, ...], batch: int, seed: int, length: int = 0) -> Call:
    """Random values of a smooth kind under the given name."""
    generator = torch.Generator().manual_seed(seed)
    sizes = [batch, *shape[:-1], length or shape[-1]]
    values = torch.randn(sizes, generator=generator).cumsum(-1) / shape[-1] ** 0.5
    return (), {name: values}


def masked(batch: int, seed: int, length: int = 0) -> Call:
    x = features("x", (32, 10), batch, seed, length)[1]["x"].transpose(1, 2).contiguous()
    keep = torch.ones(x.shape[:2], dtype=torch.bool)
    keep[0, -3:] = False
    return (x, keep), {}


def sequence(channels: int, batch: int, seed: int, length: int = 0) -> Call:
    (x, _), _ = masked(batch, seed, length)
    return (x[..., :channels].contiguous(),), {}


def with_state(batch: int, seed: int, length: int = 0) -> Call:
    x = features("x", (4, 6), batch, seed)[1]["x"]
    return (x, (torch.zeros(batch, 32), torch.zeros(batch, 32))), {}


def visits(batch: int, seed: int, length: int = 0) -> Call:
    g = torch.Generator().manual_seed(seed)
    item, seen = torch.randint(100, (batch,), generator=g), torch.randint(50, (batch, 7))
    return (item, seen, torch.randn(batch, 8, generator=g)), {}
