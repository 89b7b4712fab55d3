import os

import pytest
import torch
from hypothesis import settings

import octavo
from networks import calls, make

os.environ["OCTAVO_DEBUG"] = "1"  # every stage's graph is verified

# The same examples at every run, whatever else the machine does: what fails, fails for all.
# `pytest --hypothesis-profile=search -m hypothesis` looks for new ones.
settings.register_profile("same", derandomize=True, deadline=None)
settings.register_profile("search", max_examples=1000, deadline=None)
settings.load_profile("same")


@pytest.fixture(autouse=True)
def deterministic():
    torch.manual_seed(0)
    with torch.no_grad():
        yield


@pytest.fixture(scope="session")
def quantized():
    """name, or "name, dynamic" -> (quantized network of the table, its inputs), made once."""
    made = {}

    def get(name):
        if name not in made:
            net, inputs = make(name.removesuffix(", dynamic"))
            activations = "dynamic" if name.endswith(", dynamic") else "static"
            config = octavo.Config(min_sqnr=0, activations=activations)
            q = octavo.quantize(net, calls(inputs), config=config)
            made[name] = q, inputs
        return made[name]

    return get
