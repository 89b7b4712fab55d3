"""Data of single samples, as people give it by mistake."""

import pytest
from torch.utils.data import Dataset


class Samples(Dataset):
    """Single samples, as `make` gives them."""

    def __init__(self, make):
        self.make = make

    def __len__(self):
        return 4

    def __getitem__(self, i):
        return self.make(i)


def picture():
    return pytest.importorskip("PIL.Image").new("RGB", (8, 8))


class Outputs(Dataset):
    """What a model gives for each of some inputs, as in a pipeline of several models."""

    def __init__(self, model, inputs):
        self.model, self.inputs = model, inputs

    def __len__(self):
        return len(self.inputs)

    def __getitem__(self, i):
        return self.model(self.inputs[i])[0]


def serve(model):
    """Begin to serve a model in this process, which was forked or spawned."""
    global served
    served = model


def answer(array):
    """What the served model gives, by a thread of its own, as an array."""
    return served.submit(array).result().numpy()
