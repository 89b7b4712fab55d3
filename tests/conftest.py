import os

import pytest
import torch

import octavo
from networks import calls, make

os.environ["OCTAVO_DEBUG"] = "1"  # every stage's graph is verified


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
