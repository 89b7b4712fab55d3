"""A small reader of printed words: convolutions and two bidirectional LSTMs, trained with CTC.

    python examples/reading.py words/      # render 512 words as images, to look at
    python examples/reading.py --train     # make reading.safetensors anew: about ten minutes

The form is that of Shi, Bai and Yao, "An End-to-End Trainable Neural Network for Image-based
Sequence Recognition" (2015). Words are rendered with the font that Pillow contains: letters and
digits, tilted, blurred, in front of stripes and noise.
"""

from __future__ import annotations

import argparse
import random
import string
from collections.abc import Callable
from pathlib import Path

import numpy as np
import safetensors.torch
import torch
import torch.nn.functional as F
from PIL import Image, ImageDraw, ImageFilter, ImageFont
from torch import Tensor, nn

WEIGHTS = Path(__file__).with_name("reading.safetensors")
LETTERS = string.ascii_lowercase + string.digits
HEIGHT, WIDTH, STEP = 32, 128, 4  # pixels; STEP: of the width, for each output
SHORTEST, LONGEST = 3, 10  # letters of a word
STEPS, BATCH, SEED = 1500, 64, 0  # of training


class Reader(nn.Module):
    """Grey images (batch, 1, 32, width) -> scores (batch, width / 4, 37); the first: none."""

    def __init__(self) -> None:
        super().__init__()

        def block(before: int, after: int, pool: tuple[int, int] | None) -> nn.Sequential:
            layers = [nn.Conv2d(before, after, 3, padding=1, bias=False), nn.BatchNorm2d(after)]
            layers += [nn.ReLU(), *([nn.MaxPool2d(pool)] if pool else [])]
            return nn.Sequential(*layers)

        self.features = nn.Sequential(
            block(1, 32, (2, 2)),
            block(32, 64, (2, 2)),
            block(64, 96, None),
            block(96, 128, (2, 1)),
            block(128, 128, (2, 1)),
        )
        self.lstm = nn.LSTM(256, 128, num_layers=2, bidirectional=True)
        self.head = nn.Linear(256, 1 + len(LETTERS))

    def forward(self, images: Tensor) -> Tensor:
        x = self.features(images).flatten(1, 2)  # (batch, 128 * 2, width / 4)
        y, _ = self.lstm(x.permute(2, 0, 1))
        return self.head(y).transpose(0, 1)


def load() -> Reader:
    """The trained network, in evaluation mode."""
    model = Reader()
    state = safetensors.torch.load_file(WEIGHTS)
    model.load_state_dict(
        {k: v.float() if v.dtype is torch.float16 else v for k, v in state.items()}
    )
    return model.eval()


def words(count: int, seed: int) -> tuple[list[str], Tensor]:
    """Random words and their images, (count, 1, 32, 128) in 0..1; the same for the same seed."""
    source = random.Random(seed)
    texts = [
        "".join(source.choices(LETTERS, k=source.randint(SHORTEST, LONGEST))) for _ in range(count)
    ]
    return texts, torch.stack([render(text, source) for text in texts])


def render(text: str, source: random.Random) -> Tensor:
    """A word as an image."""
    noise = np.random.default_rng(source.getrandbits(32))
    font = ImageFont.load_default(source.randint(15, 21))
    dark, light = sorted(noise.integers(0, 256, 2))
    if light - dark < 80:
        dark, light = max(0, dark - 60), min(255, light + 60)
    ink, paper = (dark, light) if source.random() < 0.7 else (light, dark)
    image = Image.new("L", (WIDTH, HEIGHT), int(paper))
    draw = ImageDraw.Draw(image)
    for _ in range(source.randint(0, 2)):
        ends = [(source.randint(0, WIDTH), source.randint(0, HEIGHT)) for _ in range(2)]
        draw.line(ends, fill=int((2 * int(paper) + int(ink)) / 3))
    _, top, right, bottom = font.getbbox(text)
    x = source.uniform(1, max(2, WIDTH - right - 1))
    y = source.uniform(0, HEIGHT - (bottom - top)) - top
    draw.text((x, y), text, fill=int(ink), font=font)
    image = image.rotate(source.uniform(-3, 3), Image.Resampling.BILINEAR, fillcolor=int(paper))
    image = image.filter(ImageFilter.GaussianBlur(source.uniform(0, 0.8)))
    pixels = np.asarray(image, np.float32) + noise.normal(0, source.uniform(0, 14), (HEIGHT, WIDTH))
    return torch.from_numpy((pixels.clip(0, 255) / 255).astype(np.float32))[None]


def read(scores: Tensor) -> list[str]:
    """The words that scores (batch, steps, 37) say: repeated letters once, and no gaps."""
    found = []
    for best in scores.argmax(2).tolist():
        kept = [b for a, b in zip([0, *best], best, strict=False) if b and b != a]
        found.append("".join(LETTERS[b - 1] for b in kept))
    return found


@torch.no_grad()
def accuracy(model: Callable[[Tensor], Tensor], count: int = 2000) -> float:
    """The share of words, rendered for this alone, that are read without a fault."""
    texts, images = words(count, seed=2)
    found = [word for batch in images.split(100) for word in read(model(batch))]
    return sum(a == b for a, b in zip(found, texts, strict=True)) / count


def train() -> None:
    """Train on words rendered anew for each step; writes the weights."""
    torch.manual_seed(SEED)
    model = Reader().train()
    optimizer = torch.optim.AdamW(model.parameters(), 2e-3, weight_decay=1e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, STEPS)
    for step in range(STEPS):
        texts, images = words(BATCH, SEED + 1_000_000 + step)
        targets = torch.tensor([LETTERS.index(c) + 1 for t in texts for c in t])
        lengths = torch.tensor([len(t) for t in texts])
        scores = model(images).log_softmax(2)
        steps = torch.full((BATCH,), scores.shape[1])
        loss = F.ctc_loss(scores.transpose(0, 1), targets, steps, lengths, zero_infinity=True)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        if step % 100 == 99:
            right = sum(a == b for a, b in zip(read(scores.detach()), texts, strict=True)) / BATCH
            print(f"step {step + 1}: loss {loss.item():.3f}, {right:.0%} of the words right")
    print(f"{accuracy(model.eval()):.1%} of 2,000 other words right")
    state = {k: v.half() if v.is_floating_point() else v for k, v in model.state_dict().items()}
    safetensors.torch.save_file(state, WEIGHTS)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", nargs="?", type=Path, help="where to write images of words")
    parser.add_argument("--train", action="store_true", help="train, and write the weights")
    options = parser.parse_args()
    if options.train:
        train()
    if options.folder:
        options.folder.mkdir(parents=True, exist_ok=True)
        for text, image in zip(*words(512, seed=1), strict=True):
            Image.fromarray((image[0] * 255).byte().numpy()).save(options.folder / f"{text}.png")


if __name__ == "__main__":
    main()
