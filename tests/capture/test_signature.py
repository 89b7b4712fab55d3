import pytest
import torch

from networks import NETWORKS, make
from octavo import CaptureError
from octavo.capture.export import capture
from octavo.io.structure import signature_from_json, signature_to_json


@pytest.mark.parametrize("name", NETWORKS)
def test_signature_to_json_and_back(name):
    net, inputs = make(name)
    args, kwargs = inputs(2)
    _, signature = capture(net, args, kwargs)
    again = signature_from_json(signature_to_json(signature))
    assert again == signature
    assert all(shape[0] is None for _, shape in signature.inputs)


def test_arguments_by_position_and_by_keyword_are_the_same_call():
    net, inputs = make("structured")
    (left,), kwargs = inputs(2)
    _, signature = capture(net, (left,), kwargs)
    flat = signature.flatten((left, kwargs["right"]), {})
    assert all(torch.equal(a, b) for a, b in zip(flat, (left, kwargs["right"]), strict=True))


def test_other_calls_than_the_captured_one_are_refused():
    net, inputs = make("structured")
    args, kwargs = inputs(2)
    _, signature = capture(net, args, kwargs)
    with pytest.raises(CaptureError, match="structure"):
        signature.flatten(args, {})
    with pytest.raises(CaptureError, match="cannot be called like this"):
        signature.flatten((), kwargs | {"what": 1})
    with pytest.raises(CaptureError, match="shape"):
        signature.flatten((torch.rand(2, 4, 16, 16),), kwargs)


def test_a_constant_argument_is_part_of_the_graph():
    net, inputs = make("structured")
    args, kwargs = inputs(2)
    graph, signature = capture(net, args, kwargs | {"scale": 2.0})
    got = signature.unflatten(graph(*signature.flatten(args, kwargs | {"scale": 2.0})))
    torch.testing.assert_close(got, net(*args, **kwargs, scale=2.0))
    with pytest.raises(CaptureError, match="specialised"):
        signature.flatten(args, kwargs | {"scale": 3.0})


class Takes(torch.nn.Module):
    def forward(self, x, ids=None, mask=None):
        x = x[0] if isinstance(x, list) else x
        return x if mask is None else x * mask


x, ids, mask = torch.rand(2, 3), torch.zeros(2, 3, dtype=torch.int64), torch.ones(2, 3)


@pytest.mark.parametrize(
    "args, kwargs, tensors",
    [
        ((x,), {}, [x]),
        ((x, ids), {}, [x, ids]),
        ((x, None, mask), {}, [x, mask]),
        ((x,), {"mask": mask}, [x, mask]),
        (([x, ids],), {}, [x, ids]),
    ],
    ids=["one tensor", "two", "one left out", "by keyword", "a list"],
)
def test_a_call_becomes_its_tensors_in_order(args, kwargs, tensors):
    _, signature = capture(Takes(), args, kwargs)
    flat = signature.flatten(args, kwargs)
    assert [t.data_ptr() for t in flat] == [t.data_ptr() for t in tensors]


def test_positional_tensors_of_another_type_number_or_shape_are_refused():
    _, signature = capture(Takes(), (x, ids))
    for args, message in (
        ((x, x.int()), "dtype torch.int32"),
        ((x,), "structure"),
        ((x, ids, mask), "structure"),
        ((x, ids[0]), "shape"),
        ((x, [0, 1]), "structure"),
    ):
        with pytest.raises(CaptureError, match=message):
            signature.flatten(args, {})
