import pytest

from octavo.engines.recurrent import Layers

ARGUMENTS = ("x", "h", list("abcdefgh"), False, 2, 0.0, False, True, True)


def test_weights_of_a_layer_for_each_direction():
    call = Layers(*ARGUMENTS)  # two layers in two directions, two weights each
    assert (call.directions, call.each) == (2, 2)
    assert call.of(0) == (slice(0, 2), [["a", "b"], ["c", "d"]])
    assert call.of(1) == (slice(2, 4), [["e", "f"], ["g", "h"]])


def test_other_arguments_are_refused():
    with pytest.raises(TypeError):
        Layers(*ARGUMENTS[:-1])
