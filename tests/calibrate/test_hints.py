"""Hints that are not among a newcomer's most common mistakes, which tests/test_mistakes.py has."""

import re

import pytest
import torch
from torch import nn

from octavo.calibrate.hints import Failure, hints, signature_of


class Tokens(nn.Module):
    """Embeddings of ten ids, at six positions."""

    def __init__(self):
        super().__init__()
        self.tokens, self.positions = nn.Embedding(10, 4), nn.Embedding(6, 4)

    def forward(self, ids):
        return self.tokens(ids) + self.positions(torch.arange(ids.shape[1]))


class Masked(nn.Module):
    """An optional mask, in whose place the labels of a loader come."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(4, 3)

    def forward(self, x, mask=None):
        return self.linear(x) if mask is None else self.linear(x).masked_fill(mask == 0, 0)


class Functional(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.rand(4, 3, 3, 3))

    def forward(self, x):
        return nn.functional.conv2d(x, self.weight)


def flat():
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(4 * 36, 2))


def refused(model, *args, **kwargs):
    """The hints about a call that the model refuses."""
    with pytest.raises(Exception) as caught:  # whatever PyTorch raises
        model(*args, **kwargs)
    return hints(Failure.of(model, (args, kwargs), caught.value))


@pytest.mark.parametrize(
    ("ids", "expected"),
    [
        (torch.tensor([[0, 11]]), "from 0 to 11, and Embedding 'tokens' has 10 rows: is this the"),
        (torch.tensor([[-100, 1]]), "from -100 to 1, and Embedding 'tokens'"),
        (torch.zeros(1, 9, dtype=torch.int64), "from 0 to 8, and Embedding 'positions' has 6 rows"),
        (torch.zeros(1, 2), "Embedding 'tokens' takes integers: give ids.long()"),
    ],
    ids=["too high", "negative", "too long", "floating"],
)
def test_what_an_embedding_cannot_look_up(ids, expected):
    (hint,) = refused(Tokens(), ids)
    assert expected in hint


def test_labels_in_the_place_of_an_optional_argument():
    (hint,) = refused(Masked(), torch.rand(2, 4), torch.tensor([0, 1]))
    assert hint.startswith("'mask' got one integer per sample: if these are labels")


@pytest.mark.parametrize(
    ("model", "x", "expected"),
    [
        (flat(), torch.rand(2, 3, 16, 16), "Linear '2' takes 144 features and got .*2, 784"),
        (nn.Linear(4, 2), torch.rand(3, 5), "The Linear takes 4 features"),
        (nn.LSTM(4, 2), torch.rand(3, 5, 6), "The LSTM takes 4 features"),
        (nn.Conv1d(4, 2, 3), torch.rand(3, 9, 4), r"channels last: input.movedim\(-1, 1\)"),
        (flat(), torch.rand(8, 8, 3), r"channels last: input.movedim\(-1, 0\).unsqueeze"),
        (nn.Conv2d(1, 2, 3), torch.rand(16, 8, 8), r"no dimension of channels: .*unsqueeze\(1\)"),
        (nn.Conv2d(1, 2, 3), torch.rand(8, 8), r"one image without .*\[None, None\]"),
        (nn.Linear(4, 2), torch.ones(3, 4, dtype=torch.int64), r"holds integers.*input.float\(\)"),
    ],
    ids=["size", "features", "lstm", "conv1d", "image", "grey", "one grey", "integers"],
)
def test_shapes_and_types(model, x, expected):
    (hint,) = refused(model, x)
    assert re.search(expected, hint), hint


@pytest.mark.parametrize(
    "change", [lambda x: x.movedim(1, -1), lambda x: x[0], lambda x: x.double(), lambda x: x]
)
def test_doing_what_a_hint_says_is_enough(change):
    """The model takes the batch once the advice of each hint in turn is followed."""
    model, x = flat(), change((torch.rand(2, 3, 8, 8) * 255).byte())
    for _ in range(4):
        try:
            model(x)
            return
        except Exception as e:
            hint = hints(Failure.of(model, ((x,), {}), e))[0]
        if "'input' holds pixels" in hint:
            x = x.float() / 255
        else:
            advice = hint.partition(": ")[2].removeprefix("give ").partition(", or")[0]
            x = eval(advice, {"input": x})
    model(x)


def test_a_dict_within_a_tuple_and_a_list_of_samples():
    (hint,) = refused(Masked(), {"x": torch.rand(2, 4)})
    assert "'x' is a dict of forward's arguments: give it by itself" in hint
    (hint,) = refused(Masked(), [torch.rand(4), torch.rand(4)])
    assert "'x' is a list: stack its samples" in hint


def test_other_types_are_no_mistake_where_another_argument_is():
    class Both(Masked):
        def forward(self, x, mask, scale):
            return super().forward(x, mask) * scale

    mask, scale = torch.ones(2, 3, dtype=torch.int64), torch.ones(3, dtype=torch.float64)
    (hint,) = refused(Both(), torch.rand(2, 5), mask, scale)
    assert hint.startswith("Linear 'linear' takes 4 features")


def test_where_nothing_is_known_no_hint_is_given():
    assert refused(Functional(), torch.rand(2, 5, 8, 8)) == []


def test_a_batch_on_another_device_than_the_model():
    call = ((torch.rand(2, 4, device="meta"),), {})
    (hint,) = hints(Failure.of(nn.Linear(4, 2), call, RuntimeError("two devices")))
    assert hint.startswith("The model is on cpu and the batch on meta: bring them together")


def test_an_error_without_a_traceback_still_gets_hints():
    failure = Failure.of(flat(), ((torch.rand(2, 8, 8, 3),), {}), RuntimeError("channels"))
    assert hints(failure) == ["'input' has its channels last: input.movedim(-1, 1)"]


def test_the_layer_is_found_in_a_copy_of_the_model():
    with pytest.raises(IndexError) as caught:
        nn.Sequential(Tokens())(torch.tensor([[77]]))
    failure = Failure.of(nn.Sequential(Tokens()), ((torch.tensor([[77]]),), {}), caught.value)
    assert failure.path == "0.tokens"


def test_wrappers_take_what_the_model_in_them_takes():
    inner = signature_of(Masked())
    assert signature_of(nn.DataParallel(Masked())) == inner
    assert signature_of(torch.compile(Masked())) == inner
