import pytest

from octavo import ConfigError
from octavo.cli.data import ImageOptions
from octavo.cli.options import MEAN, STD, image_options


def test_the_defaults_are_those_of_images():
    assert image_options() == ImageOptions()


def test_one_number_is_for_grey_images():
    options = image_options(28, 30, "0.5", " 0.25")
    assert options == ImageOptions(28, 30, (0.5,), (0.25,))


@pytest.mark.parametrize(
    ("mean", "std", "message"),
    [
        ("0.5,b,0.5", STD, "--mean '0.5,b,0.5': numbers with commas"),
        (MEAN, "", "--std '': numbers with commas"),
        (MEAN, "0.5", "one number each, or three"),
        ("0.5,0.5", "0.5,0.5", "one number each, or three"),
    ],
)
def test_other_numbers_are_refused(mean, std, message):
    with pytest.raises(ConfigError, match=message):
        image_options(224, None, mean, std)
