import collections
import dataclasses
import enum
import json
from typing import NamedTuple

import pytest
import torch
import torch.utils._pytree as pytree
from torch import nn

from octavo import FormatError
from octavo.capture.export import capture
from octavo.io.structure import (
    is_plain,
    signature_from_json,
    signature_to_json,
    structure_from_json,
    structure_to_json,
)

Pair = collections.namedtuple("Pair", "a b")


class Triple(NamedTuple):
    first: torch.Tensor
    second: list
    third: dict


@dataclasses.dataclass
class Boxes:
    boxes: torch.Tensor
    scores: torch.Tensor | None = None
    labels: torch.Tensor | None = None


@dataclasses.dataclass
class Named:
    logits: torch.Tensor


torch.export.register_dataclass(Boxes)
torch.export.register_dataclass(Named, serialized_type_name="test_structure.Named")
PLAIN = {
    "leaf": 1,
    "tuple": (1, (2, 3)),
    "list": [1, [2], ()],
    "dict": {"a": 1, "b": {"c": [2]}},
    "ordered": collections.OrderedDict(b=1, a=2),
    "deque": collections.deque([1, 2]),
    "none": {"a": None},
    "named dataclass": [Named(1)],
}
OWN = {
    "namedtuple": Pair(1, 2),
    "nested": {"out": [Pair(1, (Pair(2, 3), 4))]},
    "typed": Triple(1, [2, 3], {"k": 4}),
    "max": torch.randn(3, 4).max(1),
    "topk": (torch.randn(3, 4).topk(2), 5),
    "svd": torch.linalg.svd(torch.eye(2)),
    "dataclass": Boxes(1, 2),
    "dataclass in a tuple": (Boxes(Pair(1, 2), labels=3), 4),
}


def again(value):
    """The value made by a structure that was written and read."""
    leaves, spec = pytree.tree_flatten(value)
    return pytree.tree_unflatten(leaves, structure_from_json(structure_to_json(spec)))


@pytest.mark.parametrize("name", PLAIN)
def test_structures_that_pytorch_writes_are_as_it_writes_them(name):
    spec = pytree.tree_structure(PLAIN[name])
    text = structure_to_json(spec)
    assert is_plain(text)
    assert pytree.treespec_loads(text) == structure_from_json(text) == spec
    assert json.loads(text) == json.loads(pytree.treespec_dumps(spec))
    assert again(PLAIN[name]) == PLAIN[name]


@pytest.mark.parametrize("name", OWN)
def test_classes_without_a_name_in_files(name):
    value, text = OWN[name], structure_to_json(pytree.tree_structure(OWN[name]))
    assert not is_plain(text)
    made = again(value)
    assert str(made) == str(value)
    assert pytree.tree_leaves(made) == pytree.tree_leaves(value)


def test_a_named_tuple_is_one_with_the_same_fields():
    made = again(Pair(1, 2))
    assert type(made) is not Pair and type(made).__name__ == "Pair"
    a, b = made
    assert (made.a, made.b, a, b) == (1, 2, 1, 2)


def test_return_types_are_pytorchs_own():
    value = torch.randn(3, 4).max(1)
    made = again(value)
    assert type(made) is torch.return_types.max
    assert torch.equal(made.indices, value.indices)


def test_a_registered_dataclass_is_used_and_another_one_made():
    text = structure_to_json(pytree.tree_structure(Boxes(1, labels=2)))
    assert type(pytree.tree_unflatten([3, 4], structure_from_json(text))) is Boxes
    elsewhere = structure_from_json(text.replace("Boxes", "Crates"))
    made = pytree.tree_unflatten([3, 4], elsewhere)
    assert type(made).__name__ == "Crates" and dataclasses.is_dataclass(made)
    assert (made.boxes, made.scores, made.labels) == (3, None, 4)
    assert structure_from_json(text.replace("Boxes", "Crates")) == elsewhere  # made once


@dataclasses.dataclass
class Own:
    value: torch.Tensor


pytree.register_pytree_node(Own, lambda o: ([o.value], Own), lambda values, _: Own(*values))


def test_a_dataclass_that_is_registered_in_a_way_of_its_own_needs_a_name():
    with pytest.raises(FormatError, match="needs a name in files"):
        structure_to_json(pytree.tree_structure(Own(1)))


class Color(enum.Enum):
    RED = 1


@pytest.mark.parametrize(
    "value", [collections.defaultdict(list, a=1), {Color.RED: 1}, (Pair({Color.RED: 1}, 2),)]
)
def test_structures_that_loading_would_import_for_are_refused(value):
    with pytest.raises(FormatError, match="not one a file may hold"):
        structure_to_json(pytree.tree_structure(value))


def test_a_class_that_this_program_does_not_know_is_named():
    text = structure_to_json(pytree.tree_structure(Named(1)))
    with pytest.raises(FormatError, match=r"elsewhere\.Named.*import the package"):
        structure_from_json(text.replace("test_structure.Named", "elsewhere.Named"))


class Sorting(nn.Module):
    def forward(self, pair, scale):
        return Pair(pair[0] * scale, pair[1].sort(1))


def test_a_signature_and_back():
    x = torch.randn(3, 4)
    signature = capture(Sorting(), ((x, x + 1), 0.5)).signature
    signature = dataclasses.replace(signature, constants=((2, 0.5), (3, torch.float64), (4, 1j)))
    made = signature_from_json(json.loads(json.dumps(signature_to_json(signature))))
    for field in ("constants", "in_spec", "inputs", "parameters"):
        assert getattr(made, field) == getattr(signature, field)
    out = made.unflatten([x, *x.sort(1)])
    assert torch.equal(out.b.values, x.sort(1).values)


def test_a_signature_with_something_else_is_refused():
    data = signature_to_json(capture(nn.ReLU(), (torch.randn(3, 4),)).signature)
    for change in ({"inputs": [["load", [None, 4]]]}, {"constants": [[0, {"code": "1"}]]}):
        with pytest.raises(FormatError):
            signature_from_json(data | change)
    with pytest.raises(TypeError):
        signature_from_json(data | {"more": 1})
