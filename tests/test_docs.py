"""Every example in a docstring, and in the pages of docs, prints what it says."""

import doctest
import importlib
import pkgutil
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


@pytest.mark.parametrize("name", ["octavo", *MODULES])
def test_examples(name):
    module = importlib.import_module(name)
    patterns = dict(octavo.DEFAULT_PATTERNS)
    engines = dict(octavo.engines.ENGINES)
    names = {"torch": torch, "nn": nn, "octavo": octavo}
    try:
        result = doctest.testmod(module, extraglobs=names)
    finally:
        octavo.DEFAULT_PATTERNS.clear()
        octavo.DEFAULT_PATTERNS.update(patterns)
        octavo.engines.ENGINES.clear()
        octavo.engines.ENGINES.update(engines)
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
