import numpy as np
import pytest
import torch

from octavo.capture.arrays import as_tensor, described, is_foreign, kind_of

NUMBERS = np.arange(6.0, dtype=np.float32).reshape(2, 3)


def read_only():
    array = NUMBERS.copy()
    array.flags.writeable = False
    return array


@pytest.mark.parametrize(
    "array",
    [NUMBERS, NUMBERS[::-1], NUMBERS[:, ::-1], NUMBERS.astype(">f4"), NUMBERS.T, read_only()],
    ids=["plain", "flipped", "mirrored", "big endian", "transposed", "read only"],
)
def test_an_array_of_any_layout_has_its_values(array):
    assert as_tensor(array).tolist() == array.tolist()
    assert as_tensor(array).dtype is torch.float32


def test_memory_is_shared_where_it_can_be():
    array = NUMBERS.copy()
    as_tensor(array)[0, 0] = 7
    assert array[0, 0] == 7


def test_the_default_type_of_numpy_becomes_that_of_the_model():
    assert as_tensor(np.zeros(2), torch.float32).dtype is torch.float32
    assert as_tensor(np.zeros(2)).dtype is torch.float64
    assert as_tensor(np.zeros(2, np.float16), torch.float32).dtype is torch.float16
    assert as_tensor(np.zeros(2, int), torch.float32).dtype is torch.int64


def test_what_holds_no_numbers_stays_and_is_foreign():
    array = np.array(["a", "b"])
    assert as_tensor(array) is array
    assert is_foreign(array)
    assert not is_foreign("mode")
    assert "dtype <U1" in described(array)


def test_a_picture_is_named_without_importing_pillow():
    image = pytest.importorskip("PIL.Image").new("RGB", (4, 4))
    assert is_foreign(image)
    assert "a PIL image: make a tensor of it" in described(image)


def test_kinds():
    assert [kind_of(v) for v in (None, 3, {}, object())] == [
        "None",
        "an int",
        "a dict",
        "an object",
    ]
