import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import octavo
from octavo import DataError
from octavo.calibrate.data import batch_size, calls, some_samples

NET = nn.Linear(4, 2)


class Two(nn.Module):
    def forward(self, a, b):
        return a + b


def shapes(data, model=NET):
    return [
        ([tuple(a.shape) for a in args], {k: tuple(v.shape) for k, v in kwargs.items()})
        for args, kwargs in calls(data, model)
    ]


def test_a_tensor_is_one_batch():
    assert shapes(torch.rand(3, 4)) == [([(3, 4)], {})]


def test_numpy_is_taken_like_a_tensor():
    assert shapes(np.zeros((3, 4), np.float32)) == [([(3, 4)], {})]


def test_a_tuple_or_dict_is_one_call():
    a, b = torch.rand(3, 4), torch.rand(3, 4)
    assert shapes((a, b), Two()) == [([(3, 4), (3, 4)], {})]
    assert shapes({"a": a, "b": b}, Two()) == [([], {"a": (3, 4), "b": (3, 4)})]


def test_an_iterable_gives_batches():
    batches = [torch.rand(3, 4), (torch.rand(2, 4),), {"input": torch.rand(1, 4)}]
    assert shapes(iter(batches)) == [([(3, 4)], {}), ([(2, 4)], {}), ([], {"input": (1, 4)})]


def test_labels_are_dropped_where_the_model_takes_fewer_arguments():
    loader = DataLoader(TensorDataset(torch.rand(6, 4), torch.arange(6)), batch_size=4)
    assert shapes(loader) == [([(4, 4)], {}), ([(2, 4)], {})]
    assert shapes((torch.rand(3, 4), torch.arange(3))) == [([(3, 4)], {})]


def test_a_split_tensor_is_batches_not_one_call():
    assert shapes(torch.rand(6, 4).split(2)) == [([(2, 4)], {})] * 3


def test_some_samples():
    call = ((torch.arange(6).view(3, 2), torch.rand(5)), {"k": torch.rand(3)})
    (a, b), kwargs = some_samples(call, 0, 2)
    assert (a.tolist(), b.shape[0], kwargs["k"].shape[0]) == ([[0, 1], [2, 3]], 5, 2)
    assert batch_size(call) == 3


@pytest.mark.parametrize("data", [None, 3, "images", object()])
def test_what_is_no_data_is_refused(data):
    with pytest.raises(DataError, match="give a tensor"):
        list(calls(data, NET))


@pytest.mark.parametrize("data", [[], (x for x in ()), iter([])], ids=["list", "generator", "iter"])
def test_no_batches_are_refused(data):
    with pytest.raises(DataError, match="empty"):
        list(calls(data, NET))


def test_a_used_up_generator_is_refused():
    generator = (torch.rand(2, 4) for _ in range(2))
    assert len(list(calls(generator, NET))) == 2
    with pytest.raises(DataError, match="used up"):
        list(calls(generator, NET))


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_values_that_are_not_finite_name_the_batch(bad):
    second = torch.rand(2, 4)
    second[1, 2] = bad
    with pytest.raises(DataError, match=r"batch 1 .* NaN or infinity"):
        list(calls([torch.rand(2, 4), second], NET))


@pytest.mark.parametrize("batch", [3, "x", torch.empty(0, 4), ("a", "b"), {}])
def test_batches_of_other_things_are_refused(batch):
    with pytest.raises(DataError, match="batch 0"):
        list(calls([batch], NET))


def test_minus_infinity_is_for_masks_alone():
    class Masked(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = nn.Linear(4, 4)

        def forward(self, x, mask):
            return (self.linear(x) + mask).softmax(-1)

    x, mask = torch.rand(8, 4), torch.zeros(8, 4)
    mask[:, 3] = -torch.inf
    assert octavo.quantize(Masked(), (x, mask))(x, mask)[:, 3].eq(0).all()
    with pytest.raises(DataError, match="NaN or infinity"):
        octavo.quantize(Masked(), (x + mask, mask))
