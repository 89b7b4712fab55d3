import dataclasses
import inspect
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from octavo import Config, ConfigError
from octavo.cli.settings import config_with, paragraphs, setting_options, takes_settings
from octavo.config import PRESETS

app = typer.Typer()


@app.command()
@takes_settings
def show(preset: str, **settings: Any) -> None:
    print(config_with(preset, settings).to_json())


def configured(*arguments):
    return Config.from_json(CliRunner().invoke(app, arguments, catch_exceptions=False).stdout)


def test_every_setting_is_an_option_with_help():
    parameters = {p.name: p for p in setting_options(Config)}
    fields = [f.name for f in dataclasses.fields(Config)]
    assert list(parameters) == [f for f in fields if f != "sites"]  # which is for TOML
    for parameter in parameters.values():
        assert parameter.annotation.__metadata__[0].help
        assert parameter.default is None


def test_without_options_it_is_the_preset():
    for name, preset in PRESETS.items():
        assert configured(name) == preset


@pytest.mark.parametrize(
    ("arguments", "settings"),
    [
        ("--observer entropy", {"observer": "entropy"}),
        ("--keep-float head --keep-float re:a.*", {"keep_float": ("head", "re:a.*")}),
        ("--min-sqnr 0", {"min_sqnr": 0.0}),
        ("--target-sqnr 12.5", {"target_sqnr": 12.5}),
        ("--optimize latency", {"optimize": "latency"}),
        ("--equalize --no-correct-biases", {"equalize": True, "correct_biases": False}),
        ("--round-weights --rounding-seconds 3", {"round_weights": True, "rounding_seconds": 3.0}),
        ("--reduce-range", {"reduce_range": True}),
        ("--no-reduce-range", {"reduce_range": False}),
        ("--tune-samples 4 --measure-samples 5", {"tune_samples": 4, "measure_samples": 5}),
    ],
)
def test_options_take_the_place_of_the_presets_values(arguments, settings):
    expected = dataclasses.replace(PRESETS["fast"], **settings)
    assert configured("fast", *arguments.split()) == expected


def test_the_commands_own_parameters_stay():
    assert list(inspect.signature(show).parameters)[:2] == ["preset", "observer"]


@dataclasses.dataclass
class Other:
    """One field of each kind.

    text: of one line.
    number: of more,
        the second [indented].
    several: a few.

    Not_a_field, and no paragraph: of one.
    """

    text: str | None = None
    number: float = 0.0
    several: tuple[str, ...] = ()
    function: Any = print


def test_fields_of_other_types_have_no_option():
    options = {p.name: p.annotation.__metadata__[0] for p in setting_options(Other)}
    assert list(options) == ["text", "number", "several"]
    assert options["number"].help == r"Of more, the second \[indented]."
    assert options["several"].help == "A few. Repeatable."


def test_paragraphs():
    expected = {"text": "of one line.", "number": "of more, the second [indented]."}
    expected |= {"several": "a few."}
    assert paragraphs(Other.__doc__) == expected
    assert paragraphs(None) == {}  # python -OO


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("slow",), "--preset slow: choose one of fast"),
        (("fast", "--observer", "max"), "observer='max'"),
        (("fast", "--measure-samples", "0"), "measure_samples=0"),
    ],
)
def test_values_that_a_setting_cannot_have_are_refused(arguments, message):
    with pytest.raises(ConfigError, match=message):
        configured(*arguments)
