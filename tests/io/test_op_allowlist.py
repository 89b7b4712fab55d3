import pytest
import torch

import octavo
from octavo.io.file import _find_operator
from octavo.io.op_allowlist import ATEN_OPERATORS, TORCH_VALUES


@pytest.mark.parametrize("name", sorted(ATEN_OPERATORS))
def test_each_is_an_operator_that_returns_new_tensors(name):
    packet = getattr(torch.ops.aten, name)
    schemas = [getattr(packet, overload)._schema for overload in packet.overloads()]
    assert name == "copy_" or not all(schema.is_mutable for schema in schemas)


@pytest.mark.parametrize(
    "name",
    [
        *("aten.from_file.default", "aten.empty.memory_format", "aten.new_empty.default"),
        *("aten._print.default", "aten.set_.source_Tensor", "aten.resize_.default"),
        *("aten.add.out", "aten.relu.__globals__", "aten.nothing.default", "aten", ""),
        *("quantized.conv2d.new", "octavo.quantize", "operator.methodcaller", "os.system"),
    ],
)
def test_all_others_are_refused(name):
    with pytest.raises(octavo.FormatError, match="not among those a file may hold"):
        _find_operator(name)


def test_values_are_dtypes_layouts_and_memory_formats():
    assert TORCH_VALUES["uint8"] is torch.uint8
    assert TORCH_VALUES["channels_last"] is torch.channels_last
    assert "load" not in TORCH_VALUES and "float" not in TORCH_VALUES
