import pytest

import octavo
from octavo.errors import near_names


def test_one_family_catches_all():
    errors = [getattr(octavo, n) for n in octavo.__all__ if n.endswith("Error")]
    assert len(errors) == 8
    assert all(issubclass(e, octavo.OctavoError) for e in errors)
    warned = [getattr(octavo, n) for n in octavo.__all__ if n.endswith("Warning")]
    assert all(issubclass(w, UserWarning) for w in warned)


def test_near_names_come_first_and_all_are_listed():
    text = near_names("heads", ["head", "stem", "blocks.0"])
    assert text == "Near names: head. There are: blocks.0, head, stem"
    assert near_names("zzz", ["head"]) == "There are: head"


def test_a_name_is_needed():
    with pytest.raises(TypeError):
        near_names(None, ["head"])
