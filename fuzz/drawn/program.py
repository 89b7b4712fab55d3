"""Program: a network as lines of source, the sizes it is called at, and its inputs."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

VALUE = re.compile(r"\b[vx]\d+\b")  # x0 is an input, v0 what a line of forward computes
MODULE = re.compile(r"\bself\.(m\d+)\b")
NAMES: Mapping[str, Any] = {"torch": torch, "nn": nn, "F": F, "math": math}
# Norms as after training, so that folding them changes something.
SETTLED = """\
for m in self.modules():
    if getattr(m, "running_var", None) is not None:
        m.running_mean.uniform_(-0.5, 0.5), m.running_var.uniform_(0.5, 2)"""


@dataclass(frozen=True)
class Sizes:
    """What an input's shape is made of: batch, length of a sequence, sides of an image."""

    B: int
    L: int
    H: int
    W: int


@dataclass(frozen=True)
class Input:
    """One argument of forward; `code` makes it from B, L, H and W."""

    name: str
    code: str
    keyword: bool = False


@dataclass(frozen=True)
class Step:
    """Some lines of forward, the values they make, and the lines of __init__ that they need."""

    code: str
    writes: tuple[str, ...]
    init: tuple[str, ...] = ()
    operator: str = ""

    @property
    def reads(self) -> set[str]:
        return set(VALUE.findall(self.code)) - set(self.writes)


@dataclass(frozen=True)
class Program:
    """A network and its calls.

    sizes: of calibration, of more calibration, and of a call that calibration has not seen.
    output: the expression that forward returns.
    """

    inputs: tuple[Input, ...]
    steps: tuple[Step, ...]
    output: str
    sizes: tuple[Sizes, Sizes, Sizes]
    dtype: str = "float32"
    channels_last: bool = False

    def source(self) -> str:
        """A module `Net` and a function `inputs`, as somebody might write them."""
        init = list(dict.fromkeys(line for step in self.live() for line in step.init))
        settled = SETTLED if any("Norm" in line for line in init) else ""
        arguments = ", ".join(i.name for i in self.inputs)
        pairs = ", ".join(f"{i.name!r}: {i.code}" for i in self.inputs)
        forward = [line for step in self.live() for line in step.code.split("\n")]
        body = [
            "class Net(nn.Module):",
            "    def __init__(self):",
            "        super().__init__()",
            *(f"        {line}" for line in [*init, *settled.splitlines()]),
            f"    def forward(self, {arguments}):",
            *(f"        {line}" for line in [*forward, f"return {self.output}"]),
            "def inputs(B, L, H, W):",
            f"    return {{{pairs}}}",
        ]
        return "\n".join(body)

    def live(self) -> list[Step]:
        """The steps whose values are read."""
        needed, kept = set(VALUE.findall(self.output)), []
        for step in reversed(self.steps):
            if needed & set(step.writes) or "_(" in step.code or "] = " in step.code:
                needed |= step.reads
                kept.append(step)
        return kept[::-1]

    def network(self) -> nn.Module:
        """The network, in eval mode; always with the same weights."""
        space = dict(NAMES)
        with torch.no_grad(), torch.random.fork_rng([]):
            torch.manual_seed(0)
            exec(self.source(), space)
            net = space["Net"]().eval().to(getattr(torch, self.dtype))
        return net.to(memory_format=torch.channels_last) if self.channels_last else net

    def call(self, sizes: Sizes, seed: int = 0) -> dict[str, Any]:
        """The arguments of a call, by name."""
        space = dict(NAMES)
        with torch.random.fork_rng([]):
            torch.manual_seed(seed)
            exec(self.source(), space)
            return {name: self._cast(v) for name, v in space["inputs"](**vars(sizes)).items()}

    def arguments(self, call: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Positional and keyword arguments."""
        keywords = {i.name for i in self.inputs if i.keyword}
        args = tuple(v for name, v in call.items() if name not in keywords)
        return args, {name: v for name, v in call.items() if name in keywords}

    def batches(self) -> list[Any]:
        """Calibration data: calls at the first two sizes, in turn."""
        calls = [self.call(self.sizes[i % 2], i) for i in range(4)]
        return calls if any(i.keyword for i in self.inputs) else [tuple(c.values()) for c in calls]

    def smaller(self) -> Iterator[Program]:
        """Programs with a step less, or with less to return."""
        values = sorted(set(VALUE.findall(self.output)))
        if self.output not in values:
            yield from (replace(self, output=v) for v in values)
        if self.channels_last:
            yield replace(self, channels_last=False)
        if self.dtype != "float32":
            yield replace(self, dtype="float32")
        read = set(VALUE.findall(self.output)).union(*(s.reads for s in self.live()))
        if unread := [i for i in self.inputs if i.name not in read and len(self.inputs) > 1]:
            yield replace(self, inputs=tuple(i for i in self.inputs if i not in unread))
        steps = tuple(self.live())
        for i in reversed(range(len(steps))):
            step = steps[i]
            for name in sorted(step.reads):
                yield replace(
                    self,
                    steps=steps[:i] + tuple(_renamed(s, step.writes, name) for s in steps[i + 1 :]),
                    output=_read(self.output, step.writes, name),
                )

    def _cast(self, value: Any) -> Any:
        floats = isinstance(value, Tensor) and value.is_floating_point()
        return value.to(getattr(torch, self.dtype)) if floats else value


def _read(code: str, names: tuple[str, ...], other: str) -> str:
    return VALUE.sub(lambda m: other if m[0] in names else m[0], code)


def _renamed(step: Step, names: tuple[str, ...], other: str) -> Step:
    return replace(step, code=_read(step.code, names, other))
