"""Every example in a docstring, and in the pages of docs, prints what it says."""

import doctest
import importlib
import pkgutil
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

import octavo
from octavo.engines.base import BUILT_IN

DOCS = Path(__file__).parents[1] / "docs"
for _module in BUILT_IN.values():  # entered before what the examples enter is taken away
    importlib.import_module(_module)

PACKAGES = pkgutil.walk_packages(octavo.__path__, "octavo.")
MODULES = [m.name for m in PACKAGES if m.name != "octavo.__main__"]


@pytest.fixture
def registries():
    """What an example enters is taken away."""
    tables = (octavo.DEFAULT_PATTERNS, octavo.engines.ENGINES)
    before = [dict(table) for table in tables]
    yield
    for table, entries in zip(tables, before, strict=True):
        table.clear()
        table.update(entries)


@pytest.mark.usefixtures("registries")
@pytest.mark.parametrize("name", ["octavo", *MODULES])
def test_examples(name):
    names = {"torch": torch, "nn": nn, "octavo": octavo}
    result = doctest.testmod(importlib.import_module(name), extraglobs=names)
    assert result.failed == 0


def test_every_public_name_says_what_it_is():
    for name in octavo.__all__:
        thing = getattr(octavo, name)
        assert isinstance(thing, octavo.sites.patterns.Registry) or (thing.__doc__ or "").strip()


def test_an_unknown_name_is_an_error():
    with pytest.raises(AttributeError):
        octavo.quantise  # noqa: B018


def test_the_page_of_checks():
    page, flags = str(DOCS / "checks.md"), doctest.ELLIPSIS
    result = doctest.testfile(page, module_relative=False, optionflags=flags)
    assert result.attempted > 4 and result.failed == 0


PAGES = ["settings", "index", "data", "accuracy-drops", "migrating", "file-format"]


@pytest.mark.filterwarnings("ignore::octavo.CollapseWarning")
@pytest.mark.parametrize("page", PAGES)
def test_pages_of_examples(page):
    result = doctest.testfile(str(DOCS / f"{page}.md"), module_relative=False)
    assert result.attempted > 4 and result.failed == 0


@pytest.mark.filterwarnings("ignore")  # of the libraries
def test_the_page_of_other_libraries():
    result = doctest.testfile(str(DOCS / "ecosystem.md"), module_relative=False)
    assert result.attempted > 20 and result.failed == 0


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.norm, self.mlp = nn.LayerNorm(8), nn.Sequential(nn.Linear(8, 16), nn.Linear(16, 8))

    def forward(self, x):
        return x + self.mlp(self.norm(x))


class Net(nn.Module):
    """Has what the settings in the pages name."""

    def __init__(self):
        super().__init__()
        self.stem, self.blocks = nn.Linear(6, 8), nn.Sequential(*(Block() for _ in range(6)))
        self.head = nn.Linear(8, 3)

    def forward(self, x):
        return self.head(self.blocks(self.stem(x)))


@pytest.mark.usefixtures("registries")
@pytest.mark.parametrize("page", ["README.md", "docs/deploy.md", "docs/serving.md"])
def test_code_in_pages_runs(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    model, batches = Net().eval(), list(torch.randn(64, 6).split(8))
    q = octavo.quantize(model, batches)
    names = {"torch": torch, "octavo": octavo, "model": model, "batches": batches, "q": q}
    names |= {
        "x": batches[0],
        "fast": q.compile(),
        "accuracy": lambda m: float(m(batches[0]).mean()),
    }
    octavo.export(q, "m.onnx")
    octavo.export(q, "m.xml")
    text = (DOCS.parent / page).read_text()
    blocks = [b for b in re.findall(r"```python\n(.*?)```", text, re.DOTALL) if ">>>" not in b]
    assert blocks
    for block in blocks:
        exec(compile(block, page, "exec"), names)


def test_the_site_is_built_without_a_warning(tmp_path):
    pytest.importorskip("mkdocs")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "-q", "-d", str(tmp_path)]
    done = subprocess.run(command, cwd=DOCS.parent, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "quantize" in (tmp_path / "api" / "index.html").read_text()


@torch.enable_grad()
def test_the_stages_of_the_architecture_page():
    result = doctest.testfile(str(DOCS / "architecture.md"), module_relative=False)
    assert result.attempted > 20 and result.failed == 0


def test_an_old_name_works_and_says_the_new_one():
    with pytest.warns(DeprecationWarning, match="FloatOp"):
        assert octavo.FloatBetween is octavo.FloatOp
