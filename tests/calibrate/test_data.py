from collections import UserDict

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import octavo
from octavo import DataError
from octavo.calibrate.data import batch_size, calls
from samples import Samples, picture

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


def test_batch_size():
    assert batch_size(((torch.zeros(3, 4), torch.zeros(5)), {})) == 3
    assert batch_size(((torch.tensor(1.0),), {})) == 1


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


class Masked(nn.Module):
    def forward(self, x, mask=None, labels=None):
        return x


class Open(nn.Module):
    def forward(self, x, **kwargs):
        return x


def test_items_of_a_dict_that_the_model_does_not_take_are_dropped():
    x, labels = torch.rand(3, 4), torch.arange(3)
    batch = {"input": x, "labels": labels, "image_id": [1, 2, 3]}
    assert shapes([batch]) == shapes(batch) == [([], {"input": (3, 4)})]
    assert shapes([UserDict(batch)]) == [([], {"input": (3, 4)})]


def test_items_of_a_dict_that_the_model_takes_are_kept():
    x, labels = torch.rand(3, 4), torch.arange(3)
    assert shapes({"x": x, "labels": labels}, Masked()) == [([], {"x": (3, 4), "labels": (3,)})]
    assert shapes({"x": x, "y": x}, Open()) == [([], {"x": (3, 4), "y": (3, 4)})]


def test_a_dict_of_which_the_model_takes_nothing_is_refused():
    with pytest.raises(DataError, match=r"dict of image, label.* but input: rename the items"):
        list(calls({"image": torch.rand(3, 4), "label": 1}, NET))


@pytest.mark.parametrize("name", ["maks", "Mask", "masks", "_mask"])
def test_a_name_like_that_of_an_argument_is_not_dropped(name):
    batch = {"x": torch.rand(3, 4), name: torch.ones(3)}
    with pytest.raises(DataError, match=f"{name!r}, .* does take 'mask': rename the item"):
        list(calls([batch], Masked()))
    assert shapes({**batch, "mask": torch.ones(3)}, Masked()) == [([], {"x": (3, 4), "mask": (3,)})]
    labelled = {"x": torch.rand(3, 4), "label": torch.ones(3)}  # a target, not a misspelt argument
    assert shapes(labelled, Masked()) == [([], {"x": (3, 4)})]


def test_labels_are_dropped_where_a_wrapper_takes_anything():
    batch = [(torch.rand(3, 4), torch.arange(3))]
    for model in (nn.DataParallel(NET), torch.compile(NET)):
        assert shapes(batch, model) == [([(3, 4)], {})]


@pytest.mark.parametrize("wrap", [lambda a: a, lambda a: [(a, 1)], lambda a: {"input": a}])
def test_the_default_type_of_numpy_becomes_that_of_the_model(wrap):
    def dtype(model):
        ((args, kwargs),) = calls(wrap(np.zeros((2, 4))), model)
        return next(iter((*args, *kwargs.values()))).dtype

    assert dtype(nn.Linear(4, 2)) is torch.float32
    assert dtype(nn.Identity()) is torch.float32
    assert dtype(nn.Linear(4, 2).double()) is torch.float64
    ((args, _),) = calls(torch.zeros(2, 4, dtype=torch.float64), NET)
    assert args[0].dtype is torch.float64  # someone has chosen this


@pytest.mark.parametrize("make", [lambda i: (torch.rand(3), i), lambda i: 1 / 0])
def test_a_dataset_is_to_be_wrapped(make):
    with pytest.raises(DataError, match=r"is a Samples, .* needed: wrap it in a DataLoader"):
        list(calls(Samples(make), NET))


def test_a_dataset_of_pictures_needs_a_transform_as_well():
    with pytest.raises(DataError, match=r"transform=.*ToTensor\(\), and wrap it in a DataLoader"):
        list(calls(Samples(lambda i: (picture(), i)), NET))


@pytest.mark.parametrize(
    "form", [lambda p: p, lambda p: [p], lambda p: [(p, 1)], lambda p: {"x": p}]
)
def test_pictures_are_named(form):
    with pytest.raises(DataError, match=r"a PIL image: make a tensor of it, .*ToTensor"):
        list(calls(form(picture()), Masked()))


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda i: torch.rand(3 + i), "stack expects .* equal size.*: bring the samples to one"),
        (lambda i: (picture(), i), "default_collate.*: give the dataset transform="),
        (lambda i: 1 / 0, "batch 0: ZeroDivisionError: division by zero"),
        (lambda i: torch.rand(3) if i < 2 else {}[i], "batch 1: KeyError: 2"),
    ],
)
def test_where_a_loader_fails_the_batch_is_named(make, reason):
    with pytest.raises(DataError, match=reason):
        list(calls(DataLoader(Samples(make), batch_size=2), nn.Linear(3, 2)))


def test_what_a_worker_of_a_loader_raised_is_in_the_message():
    loader = DataLoader(Samples(lambda i: 1 / 0), batch_size=2, num_workers=1)
    with pytest.raises(DataError, match="batch 0: ZeroDivisionError: division by zero"):
        list(calls(loader, NET))


def test_errors_of_ones_own_generator_stay_ones_own():
    def broken():
        yield torch.rand(2, 4)
        raise FileNotFoundError("b.jpg")

    with pytest.raises(FileNotFoundError):
        list(calls(broken(), NET))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (["a.jpg", "b.jpg"], "batch 0 .* is 'a.jpg': load and preprocess"),
        ([("a.jpg", 1)], "batch 0 .* holds no tensor, but str: make tensors"),
        ([{"input": [[1, 2], [3, 4]]}], "holds no tensor, but int.*return_tensors='pt'"),
        (np.array(["a", "b"]), "array of dtype <U1: make numbers"),
        (nn.Linear(4, 2), "calibration data is a model, Linear"),
        (torch.rand(2, 4, device="meta"), "on the meta device, without data"),
        (torch.eye(4).to_sparse(), "of layout torch.sparse_coo: give dense"),
        ([None], "batch 0 .* is None; a batch is a tensor"),
    ],
)
def test_other_data_is_named(data, message):
    with pytest.raises(DataError, match=message):
        list(calls(data, NET))


def test_flipped_images_are_data():
    images = np.arange(8, dtype=np.float32).reshape(2, 4)
    ((args, _),) = calls(images[:, ::-1], NET)
    assert args[0].tolist() == [[3, 2, 1, 0], [7, 6, 5, 4]]


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
