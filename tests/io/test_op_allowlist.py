import pytest
import torch

from octavo.graph.operators import OPERATORS
from octavo.io.op_allowlist import ATEN_OPERATORS, FURTHER_OPERATORS, TORCH_VALUES

# Rows of the operator table when the format was fixed: files hold them, whatever becomes of a row.
FIRST_ROWS = """
    _unsafe_view adaptive_avg_pool1d adaptive_avg_pool2d adaptive_avg_pool3d adaptive_max_pool2d
    add addmm avg_pool1d avg_pool2d avg_pool3d baddbmm batch_norm bmm cat channel_shuffle chunk
    clamp clamp_min clone constant_pad_nd contiguous conv1d conv2d conv3d conv_transpose1d
    conv_transpose2d conv_transpose3d div dropout elu embedding expand expand_as flatten flip
    gelu group_norm gru hardsigmoid hardswish hardtanh index_select instance_norm layer_norm
    leaky_relu linear log_softmax lstm matmul max_pool1d max_pool2d max_pool3d mean mish movedim
    mul narrow pad permute pixel_shuffle pixel_unshuffle prelu reflection_pad1d reflection_pad2d
    relu repeat replication_pad2d reshape rms_norm rnn_relu rnn_tanh roll select sigmoid silu
    slice softmax softplus split split_with_sizes squeeze sum t tanh transpose unbind unflatten
    unsqueeze upsample_bilinear2d upsample_nearest1d upsample_nearest2d upsample_nearest3d view
    view_as
"""


def test_every_row_of_the_operator_table_is_allowed_and_no_name_is_there_twice():
    further = FURTHER_OPERATORS.split()
    assert len(set(further)) == len(further)
    assert not OPERATORS.keys() & set(further)
    assert OPERATORS.keys() | set(further) == ATEN_OPERATORS


def test_what_older_files_hold_stays_allowed():
    assert set(FIRST_ROWS.split()) <= ATEN_OPERATORS
    assert len(FURTHER_OPERATORS.split()) + len(FIRST_ROWS.split()) >= 490


@pytest.mark.parametrize("name", sorted(ATEN_OPERATORS))
def test_each_is_an_operator_that_returns_new_tensors(name):
    packet = getattr(torch.ops.aten, name)
    schemas = [getattr(packet, overload)._schema for overload in packet.overloads()]
    assert name == "copy_" or not all(schema.is_mutable for schema in schemas)


@pytest.mark.parametrize("name", ["empty", "from_file", "_print", "set_", "add_", "resize_", ""])
def test_what_writes_reads_files_or_prints_is_not_allowed(name):
    assert name not in ATEN_OPERATORS


def test_values_are_dtypes_layouts_and_memory_formats():
    assert TORCH_VALUES["uint8"] is torch.uint8
    assert TORCH_VALUES["channels_last"] is torch.channels_last
    assert "load" not in TORCH_VALUES and "float" not in TORCH_VALUES
