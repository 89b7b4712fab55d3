"""Every example in a docstring runs and prints what it says."""

import doctest
import importlib
import pkgutil

import pytest
import torch
from torch import nn

import octavo
import octavo.engines.onnx
import octavo.engines.openvino
import octavo.engines.reference
import octavo.engines.torch_int8  # all are entered before what the examples enter is taken away

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
