"""Inputs of the samples in test_forms, by batch and length, and samples of several operators."""

import torch

aten = torch.ops.aten


def reals(n, s):
    return torch.randn(n, 4, s) * 3


def positive(n, s):
    return torch.rand(n, 4, s) * 3 + 0.1


def tenths(n, s):
    return torch.randint(-40, 40, (n, 4, s)) / 10


def unit(n, s):
    return torch.rand(n, 4, s) * 2 - 1


def whole(n, s):
    return torch.randint(-9, 9, (n, 4, s))


def few(n, s):  # many are equal
    return torch.randint(0, 3, (n, 4, s)).float()


def flags(n, s):
    return torch.rand(n, 4, s) > 0.5


def ids(n, s):
    return torch.randint(0, 4, (n, 3, s))


def tokens(n, s):
    return torch.randn(n, s, 8)


def images(n, s):
    return torch.randn(n, 4, s, s + 3)


def cubes(n, s):
    return torch.randn(n, 4, s, s + 1, 5)


def of_each_size(name, *forms):
    """Samples of an operator in 1, 2 and 3 dimensions; a form takes its arguments' repeater."""
    kinds = {1: reals, 2: images, 3: cubes}
    return {
        getattr(aten, name % d): (
            lambda x, d=d: tuple(f(x, d, getattr(aten, name % d)) for f in forms),
            make,
        )
        for d, make in kinds.items()
    }
