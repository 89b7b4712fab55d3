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
