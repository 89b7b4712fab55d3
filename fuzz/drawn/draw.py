"""seed -> Program: each line is run in PyTorch at three sizes before it is kept."""

from __future__ import annotations

import contextlib
import random
import re
import warnings
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from octavo.graph.operators import OPERATORS

from .program import MODULE, NAMES, VALUE, Input, Program, Sizes, Step
from .templates import GROUPS, ROWS, Row

CHOICE = re.compile(r"<([^<>\n]*\|[^<>\n]*)>")
MADE = re.compile(r"\[\[((?:[^\[\]]|\[[^\[\]]*\])*)\]\]")
FEATURES = (3, 4, 6, 8, 8, 16, 17, 32)
LARGEST = 6000  # values of a tensor
TABLE = list(OPERATORS)

# code, and the ranks that it serves
KINDS = {
    "image": "torch.randn(B, {c}, H, W)",
    "volume": "torch.randn(B, {c}, H // 2, 4, W // 2)",
    "series": "torch.randn(B, {c}, L)",
    "tokens": "torch.randn(B, L, {c})",
    "steps": "torch.randn(L, B, {c})",
    "vector": "torch.randn(B, {c})",
    "ids": "torch.randint(0, 50, (B, L))",
    "bytes": "torch.randint(0, 256, (B, 3, H, W), dtype=torch.uint8)",
    "turned": "torch.randn(B, H, W, {c}).permute(0, 3, 1, 2)",
    "positive": "torch.rand(B, {c}, H, W)",
}
OFTEN = (
    *("image",) * 6,
    *("volume", "series", "series", "tokens", "tokens", "tokens", "steps", "vector", "vector"),
    *("ids", "ids", "bytes", "turned", "positive"),
)
BY_RANK = {"1": "vector", "2": "vector", "3": "tokens", "4": "image", "5": "volume", "i": "ids"}
MASK = "torch.rand(B, L).argsort(1) > 1"  # as many in each row


class Unfit(Exception):
    """A template does not apply to the values there are."""


def draw(seed: int) -> Program:
    """The network of a seed; the same for the same version of the templates and of PyTorch."""
    rng = random.Random(seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of lines that are tried
        while True:
            with contextlib.suppress(Unfit):
                return Drawing(rng, TABLE[seed % len(TABLE)]).program()


class Drawing:
    """A network while it is drawn: its steps so far and their values at each of the sizes."""

    def __init__(self, rng: random.Random, featured: str) -> None:
        self.rng, self.featured = rng, featured
        self.net = nn.Module()
        self.steps: list[Step] = []
        self.modules = 0
        self.sizes = self._sizes()
        self.inputs = self._inputs()
        bare = Program(self.inputs, (), self.inputs[0].name, self.sizes)
        self.values: list[dict[str, Tensor]] = [bare.call(sizes, 3) for sizes in self.sizes]

    def program(self) -> Program:
        """Draw steps, the featured one at some time, and an output."""
        rng, tries = self.rng, 0
        count = rng.choice((1, 2, 3, 4, 4, 5, 6, 7, 8, 9))
        at = rng.randrange(count)
        rows = [r for r in ROWS if r.operator == self.featured]
        while len(self.steps) < count or rows:
            due = rows and len(self.steps) >= at
            tries += 1
            if tries > 300:
                raise Unfit
            self._try(rng.choice(rows) if due else self._row())
            if due and self.steps and self.steps[-1].operator == self.featured:
                rows = []
        program = Program(
            self.inputs,
            tuple(self.steps),
            self._output(),
            self.sizes,
            "float32" if rng.random() > 0.05 else rng.choice(("float16", "bfloat16", "float64")),
            "H, W)" in self.inputs[0].code and rng.random() < 0.2,
        )
        if not runs(program):
            raise Unfit
        return program

    # ---- inputs

    def _sizes(self) -> tuple[Sizes, Sizes, Sizes]:
        """A batch that differs always; in part of the networks, also the length or image size."""
        rng = self.rng
        length, high, wide = rng.choice((6, 8, 11)), rng.choice((6, 8, 9)), rng.choice((6, 8, 11))
        first = Sizes(rng.choice((2, 4, 4, 5)), length, high, wide)
        free = rng.random() < 0.4
        more = rng.choice((2, 3, 6))
        if not free:
            return first, replace(first, B=more), replace(first, B=1)
        return (
            first,
            Sizes(more, length + 3, high + 4, wide + 4),
            Sizes(1, length - 1, high + 2, wide + 2),
        )

    def _inputs(self) -> tuple[Input, ...]:
        rng = self.rng
        ranks = "".join(r.ranks for r in ROWS if r.operator == self.featured)
        fit = ranks and rng.random() < 0.7
        kind = BY_RANK[rng.choice(ranks)] if fit else rng.choice(OFTEN)
        kinds = [kind]
        if rng.random() < 0.3:
            kinds.append(rng.choice((kind, kind, rng.choice(OFTEN))))
        channels = rng.choice(FEATURES)
        code = [KINDS[k].replace("{c}", str(channels)) for k in kinds]
        if kind in ("tokens", "ids") and rng.random() < 0.5:
            code.append(MASK)
        keyword = rng.random() < 0.3
        return tuple(Input(f"x{i}", c, keyword and i > 0) for i, c in enumerate(code))

    # ---- steps

    def _row(self) -> Row:
        if not self.steps and self.rng.random() < 0.6:
            return self.rng.choice(GROUPS[0].rows)
        (group,) = self.rng.choices(GROUPS, [g.weight for g in GROUPS])
        return self.rng.choice(group.rows)

    def _try(self, row: Row) -> None:
        """Add a step with one of a row's templates, if one of the values fits and it runs."""
        with contextlib.suppress(Exception):  # whatever PyTorch raises: not a valid line here
            step = self._fill(row, self.rng.choice(row.templates))
            made = self._run(step)
            for known, new in zip(self.values, made, strict=True):
                known |= new
            self.steps.append(step)

    @torch.no_grad()
    def _run(self, step: Step) -> list[dict[str, Tensor]]:
        """The values that a step makes, at each size; no template writes to those there are."""
        names = dict(NAMES) | {"self": self.net}
        for line in step.init:
            exec(line, names)
        self.net.eval()
        made = []
        for known in self.values:
            space = names | known
            exec(step.code, space)
            made.append({name: space[name] for name in step.writes})
        if not all(_usable(v) for new in made for v in new.values()):
            raise Unfit
        return made

    def _fill(self, row: Row, template: str) -> Step:
        """The step of a template, its names, sizes and choices filled in."""
        x = self._pick(row.ranks)
        text = template
        while found := CHOICE.search(text):
            chosen = self.rng.choice(found[1].split("|"))
            text = text[: found.start()] + chosen + text[found.end() :]
        for name, fill in self._fillings(x):
            if "{" + name + "}" in text:
                text = text.replace("{" + name + "}", str(fill()))
        init: dict[str, str] = {}
        while made := MADE.search(text):
            if made[1] not in init:
                init[made[1]] = f"m{self.modules}"
                self.modules += 1
            text = text[: made.start()] + f"self.{init[made[1]]}" + text[made.end() :]
        lines = [f"torch.manual_seed({n[1:]}); self.{n} = {code}" for code, n in init.items()]
        lines += [line for s in self.steps for line in s.init if self._shares(text, line)]
        return self._named(text, tuple(lines), row.operator)

    def _shares(self, text: str, line: str) -> bool:
        return bool(set(MODULE.findall(text)) & set(MODULE.findall(line)))

    def _named(self, text: str, init: tuple[str, ...], operator: str) -> Step:
        if "{out}" not in text:
            text = "{out} = " + text
        new = f"v{2 * len(self.steps)}", f"v{2 * len(self.steps) + 1}"
        both = "{out}, {two}" in text
        code = text.replace("{out}", new[0]).replace("{two}", new[1])
        return Step(code, new if both else new[:1], init, operator)

    def _fillings(self, x: str) -> Iterator[tuple[str, Any]]:
        """Name in a template -> function that gives its value."""
        rng, shape = self.rng, self.values[0][x].shape
        rank = len(shape)

        def fixed(dim: int) -> int:
            if len({known[x].shape[dim] for known in self.values}) > 1:
                raise Unfit
            return shape[dim]

        def divisor(of: int) -> int:
            return rng.choice([n for n in range(1, of + 1) if of % n == 0])

        group = None

        def groups() -> int:
            nonlocal group
            group = group or divisor(fixed(1))
            return group

        yield "x", lambda: x
        yield "y", lambda: self._partner(x)
        yield "i", lambda: x
        yield "m", lambda: self._pick("b")
        yield "shared", self._module
        yield "C", lambda: fixed(1)
        yield "D", lambda: fixed(-1)
        yield "H", lambda: divisor(fixed(-1))
        yield "G", groups
        yield "M", lambda: groups() * rng.choice((1, 2, 4))
        yield "K", lambda: rng.choice(FEATURES)
        yield "d", lambda: rank - 2
        yield "ones", lambda: ", 1" * (rank - 2)
        yield "k", lambda: rng.choice((", 1", ", 3")) * (rank - 2)
        yield "pads", lambda: ", 1, 0" * (rank - 3)
        yield "axis", lambda: rng.choice([*range(1, rank), -1])

    def _pick(self, ranks: str) -> str:
        """A value of one of these ranks, rather a late one."""
        fit = [n for n, v in self.values[0].items() if _fits(v, ranks)]
        if not fit:
            raise Unfit
        return fit[-1] if self.rng.random() < 0.7 else self.rng.choice(fit)

    def _partner(self, x: str) -> str:
        """Another value; where there is one, of the same shape."""
        floats = [n for n, v in self.values[0].items() if n != x and v.is_floating_point()]
        same = [n for n in floats if all(v[n].shape == v[x].shape for v in self.values)]
        return self.rng.choice(same or floats or [x]) if self.rng.random() < 0.9 else x

    def _module(self) -> str:
        lines = "\n".join(line for s in self.steps for line in s.init)
        names = sorted(set(MODULE.findall(lines)))
        if not names:
            raise Unfit
        return "self." + self.rng.choice(names)

    # ---- the output

    def _output(self) -> str:
        """One tensor mostly: the last. Else several, in some structure."""
        rng = self.rng
        made = [name for s in self.steps for name in s.writes]
        read = set().union(*(s.reads for s in self.steps))
        loose = [n for n in made if n not in read] or made[-1:]
        if not loose:
            raise Unfit
        last = loose[-1]
        other = rng.choice([n for n in self.values[0] if VALUE.fullmatch(n)])
        if rng.random() < 0.5:
            return last if len(loose) == 1 else f"({', '.join(loose[-3:])})"
        return rng.choice(
            (
                f"({last}, {other})",
                f"[{', '.join(loose[-3:])}]",
                f"{{'out': {last}, 'more': ({other}, {last})}}",
                f"{{'loss': None, 'out': {last}}}",
                f"({last}, None)",
                f"({last}, {last}.shape[1] if {last}.dim() > 1 else 3)",
                f"{{'b': [{last}, {{'c': {other}}}], 'a': {other}}}",
                f"({last}, {last}.amax(-1))",
                f"({last}, {last} > 0, {last}.mean())",
                f"({last},)",
                f"({last}, 'name', True)",
            )
        )


def runs(program: Program) -> bool:
    """Whether PyTorch runs it at all of its sizes, to finite numbers."""
    try:
        net = program.network()
        for sizes in program.sizes:
            args, kwargs = program.arguments(program.call(sizes))
            with torch.no_grad():
                result = net(*args, **kwargs)
            leaves = torch.utils._pytree.tree_leaves(result)
            if not all(_usable(v) for v in leaves if isinstance(v, Tensor)):
                return False
    except Exception:  # such as a kernel that PyTorch lacks for float16
        return False
    return True


def _fits(value: Any, ranks: str) -> bool:
    if ranks == "b":
        return value.dtype is torch.bool
    if ranks == "i":
        return value.dtype is torch.int64
    return value.is_floating_point() and (not ranks or str(value.dim()) in ranks)


def _usable(value: Any) -> bool:
    """A tensor, not empty, of moderate size, its numbers finite and of moderate size."""
    if not isinstance(value, Tensor) or not 0 < value.numel() <= LARGEST or value.dim() > 6:
        return False
    return not value.is_floating_point() or bool(value.isfinite().all() and value.abs().max() < 100)
