import numpy as np
import openvino
import openvino.opset15 as ov
import pytest
import torch

from octavo.engines.openvino import values
from octavo.engines.openvino.table import Unsupported


def parameter(dtype=np.float32, shape=(-1, 4)):
    return ov.parameter(openvino.PartialShape(list(shape)), openvino.Type(dtype)).output(0)


def number(output):
    return output.get_node().get_data().tolist()


def test_sizes_that_are_known_and_one_that_is_not():
    x = parameter()
    assert (values.rank(x), values.length(x, -1)) == (2, 4)
    with pytest.raises(Unsupported, match="dimension 0 is not known"):
        values.length(x, 0)


def test_axes_from_the_end():
    x = parameter(shape=(1, 2, 3))
    assert number(values.axis(x, -1)) == 2
    assert values.axes(x, (-1, 0)).tolist() == [2, 0]


def test_vectors_of_numbers_and_of_outputs():
    assert number(values.ints([1, 2])) == [1, 2]
    assert number(values.ints(3)) == [3]
    mixed = values.ints([1, values.scalar(2)])
    assert mixed.get_partial_shape() == openvino.PartialShape([2])


@pytest.mark.parametrize("value", [True, 2, 0.5])
def test_two_operands_have_pytorchs_type(value):
    for dtype in (torch.float32, torch.int64, torch.bool):
        a, b = values.pair(parameter(torch.empty(0, dtype=dtype).numpy().dtype), value)
        expected = torch.result_type(torch.empty(1, 1, dtype=dtype), value)
        assert values.torch_type(a) == values.torch_type(b) == expected


def test_types_that_do_not_fit():
    with pytest.raises(Unsupported, match="operands of different types"):
        values.like(parameter(), parameter(np.int64))
    with pytest.raises(Unsupported, match="an integer tensor and a float number"):
        values.like(0.5, parameter(np.int64))
    with pytest.raises(Unsupported, match="conversion to torch"):
        values.cast(parameter(), torch.bfloat16)


def test_one_number_for_each_dimension():
    assert values.each(3, 2) == values.each([3], 2) == [3, 3]
    assert values.each((1, 2), 2) == [1, 2]
