import operator

import pytest
import torch

from engines.openvino.operator_cases import assert_unsupported
from octavo.engines.openvino.table import TABLE, lowers


def test_entries_are_made_by_name_or_by_function():
    def half(x):
        return x

    before = dict(TABLE)
    try:
        assert lowers("dot", operator.truediv)(half) is half
        assert TABLE[torch.ops.aten.dot] is TABLE[operator.truediv] is half
    finally:
        TABLE.clear()
        TABLE.update(before)


def test_a_name_that_aten_does_not_have():
    with pytest.raises(AttributeError, match="halve"):
        lowers("halve")(lambda x: x)


def test_an_operator_without_an_entry_is_named():
    assert_unsupported(lambda x: torch.topk(x, 2)[0], "no entry for node 'topk'")
