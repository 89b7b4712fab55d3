import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from octavo.graph import ops


def test_quantize_against_pytorch():
    x = torch.randn(5, 7) * 3
    expected = torch.quantize_per_tensor(x, 0.1, 100, torch.quint8).int_repr()
    got = ops.quantize(x, torch.tensor(0.1), torch.tensor(100), 0, 255, torch.uint8)
    assert got.dtype == torch.uint8
    assert (got.int() - expected.int()).abs().max() <= 1  # ties: x / s here, x * (1 / s) there
    assert (got != expected).float().mean() < 0.01


def test_per_channel_against_pytorch():
    x = torch.randn(4, 6)
    scale, zero = torch.tensor([0.1, 0.2, 0.3, 0.4]), torch.zeros(4, dtype=torch.int32)
    expected = torch.quantize_per_channel(x, scale.double(), zero, 0, torch.qint8)
    got = ops.quantize(x, scale, zero, -128, 127, torch.int8, 0)
    torch.testing.assert_close(got, expected.int_repr())
    torch.testing.assert_close(ops.dequantize(got, scale, None, 0), expected.dequantize())


def test_values_outside_are_clamped():
    x = torch.tensor([-1e9, 0.0, 1e9])
    q = ops.quantize(x, torch.tensor(1.0), torch.tensor(3), 0, 255, torch.uint8)
    assert q.tolist() == [0, 3, 255]


def test_inputs_are_not_written_to():
    x, q = torch.randn(3), torch.tensor([1, 2, 3], dtype=torch.uint8)
    before = x.clone()
    ops.quantize(x, torch.tensor(0.5), torch.tensor(1), 0, 255, torch.uint8)
    ops.dequantize(q, torch.tensor(0.5), torch.tensor(1))
    assert torch.equal(x, before)
    assert q.tolist() == [1, 2, 3]


def test_a_negative_axis_counts_from_the_end():
    x = torch.randn(2, 3)
    scale, zero = torch.tensor([0.1, 0.2, 0.3]), torch.zeros(3, dtype=torch.int32)
    assert torch.equal(
        ops.quantize(x, scale, zero, -127, 127, torch.int8, -1),
        ops.quantize(x, scale, zero, -127, 127, torch.int8, 1),
    )


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_the_scale_s_dtype_is_the_result_s(dtype):
    q = torch.tensor([0, 255], dtype=torch.uint8)
    assert ops.dequantize(q, torch.tensor(0.5, dtype=dtype), torch.tensor(1)).dtype == dtype


def test_they_can_be_exported():
    class Net(torch.nn.Module):
        def forward(self, x):
            s, z = torch.tensor(0.1), torch.tensor(5)
            return ops.dequantize(ops.quantize(x, s, z, 0, 255, torch.uint8), s, z)

    x = torch.rand(3)
    assert torch.equal(torch.export.export(Net(), (x,)).module()(x), Net()(x))


def test_scales_of_another_length_than_the_axis_are_refused():
    with pytest.raises(RuntimeError):
        ops.dequantize(torch.zeros(2, 3, dtype=torch.int8), torch.ones(4), None, 0)


@pytest.mark.parametrize("identity", [ops.fuse_in_accumulator, ops.requantize_hint])
def test_what_tells_an_engine_integers_is_the_value_itself(identity):
    x = torch.randn(2, 3)
    y = identity(x, torch.tensor(0.1), torch.tensor(0), 0, 255)
    assert torch.equal(y, x)
    assert y.data_ptr() != x.data_ptr()


def test_groups_by_hand():
    x = torch.tensor([[1.27, -0.635, 0.0, 254.0, 1.0]])
    scale = ops.dynamic_scale(x, 2)  # of (1.27, -0.635), (0, 254) and, alone, 1
    torch.testing.assert_close(scale, torch.tensor([[0.01, 2.0, 1 / 127]]))
    q = ops.quantize_groups(x, scale, 2)
    assert q.dtype == torch.int8
    assert q.tolist() == [[127, -64, 0, 127, 127]]  # -63.5 to even
    got = ops.dequantize_groups(q, scale, 2)
    torch.testing.assert_close(got, torch.tensor([[1.27, -0.64, 0.0, 254.0, 1.0]]))
    torch.testing.assert_close(ops.fake_quantize_groups(x, 2), got)


def test_zeros_are_exact():
    assert (
        ops.fake_quantize_groups(torch.zeros(2, 3, 4), 3).tolist() == torch.zeros(2, 3, 4).tolist()
    )


@given(
    shape=st.tuples(*[st.integers(1, 4)] * 2, st.integers(1, 40)),
    size=st.integers(1, 50),
    magnitude=st.integers(-6, 6),
)
def test_a_group_is_rounded_to_its_own_127_th(shape, size, magnitude):
    x = torch.randn(shape) * 10.0**magnitude
    error = (ops.fake_quantize_groups(x, size) - x).abs()
    for values, wrong in zip(x.split(size, -1), error.split(size, -1), strict=True):
        step = values.abs().amax(-1, keepdim=True) / 127
        assert (wrong <= step / 2 * 1.0001).all()


def test_each_position_is_rounded_by_itself():
    x = torch.randn(3, 5, 24)
    whole = ops.fake_quantize_groups(x, 16)
    assert torch.equal(ops.fake_quantize_groups(x[1:2, 3:], 16), whole[1:2, 3:])


def test_groups_can_be_exported():
    class Net(torch.nn.Module):
        def forward(self, x):
            scale = ops.dynamic_scale(x, 16)
            return ops.dequantize_groups(ops.quantize_groups(x, scale, 16), scale, 16)

    x = torch.randn(3, 40)
    batch = torch.export.Dim("batch")
    program = torch.export.export(Net(), (x,), dynamic_shapes=({0: batch},))
    assert torch.equal(program.module()(x[:2]), Net()(x[:2]))


def test_scales_of_another_number_of_groups_are_refused():
    with pytest.raises(RuntimeError):
        ops.dequantize_groups(torch.zeros(2, 8, dtype=torch.int8), torch.ones(2, 3), 2)
