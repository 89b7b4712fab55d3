import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from octavo.engines.torch_int8.dynamic import dynamic_linear
from octavo.graph import ops


@settings(max_examples=30)
@given(
    lead=st.lists(st.integers(1, 5), min_size=1, max_size=3),
    channels=st.integers(1, 70),
    outputs=st.integers(1, 20),
    size=st.integers(1, 80),
    has_bias=st.booleans(),
)
def test_it_is_a_linear_layer_on_rounded_inputs(lead, channels, outputs, size, has_bias):
    x, weight = torch.randn(*lead, channels), torch.randint(-127, 128, (outputs, channels))
    weight, scales = weight.to(torch.int8), torch.rand(outputs) + 0.1
    bias = torch.randn(outputs) if has_bias else None
    rounded = ops.fake_quantize_groups(x, size)
    expected = torch.nn.functional.linear(rounded, weight * scales[:, None], bias)
    got = dynamic_linear(x, weight, scales, bias, size)
    torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-2)


def test_an_empty_batch():
    weight, scales = torch.ones(3, 8, dtype=torch.int8), torch.ones(3)
    assert dynamic_linear(torch.zeros(0, 8), weight, scales, None, 4).shape == (0, 3)


def test_inputs_of_another_width_are_refused():
    weight, scales = torch.ones(3, 8, dtype=torch.int8), torch.ones(3)
    with pytest.raises((RuntimeError, ValueError)):
        dynamic_linear(torch.zeros(2, 24), weight, scales, None, 8)
