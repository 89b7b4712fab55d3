"""The settings of `Config` as options of a command, made from its fields and its docstring."""

from __future__ import annotations

import dataclasses
import inspect
import re
from collections.abc import Iterator, Mapping
from inspect import Parameter
from pathlib import Path
from typing import Annotated, Any, get_args, get_origin, get_type_hints

import typer
from rich.markup import escape

from ..config import PRESETS, Config, as_config
from ..errors import ConfigError
from .options import Command

# Panels of --help. A switch takes a column more, for "--no-...": in a panel with the others it
# would narrow their help.
VALUES, SWITCHES = "Settings (override the preset)", "Switches (override the preset)"


def takes_settings(command: Command) -> Command:
    """Decorator: for typer, an option for each setting takes the place of `**settings`."""
    signature = inspect.signature(command, eval_str=True)
    own = [p for p in signature.parameters.values() if p.kind is not Parameter.VAR_KEYWORD]
    parameters = [*own, *setting_options(Config)]
    command.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
    return command


def config_with(
    preset: str | None, settings: Mapping[str, Any], file: Path | None = None
) -> Config:
    """The preset of that name, or a TOML file's settings, with those given that are not None.

    Raises ConfigError for both a preset and a file, and for a file that cannot be read.
    """
    given = {name: value for name, value in settings.items() if value is not None}
    if preset is not None and preset not in PRESETS:
        raise ConfigError(f"--preset {preset}: choose one of {', '.join(PRESETS)}")
    if file is None:
        return dataclasses.replace(as_config(preset), **given)
    if preset is not None:
        raise ConfigError("--preset and --config both say what to start from: give one of them")
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as e:
        raise ConfigError(f"cannot read {file}: {e}") from e
    try:
        return dataclasses.replace(Config.from_toml(text), **given)
    except ConfigError as e:
        raise ConfigError(f"{file}: {e}") from e


def setting_options(settings: type) -> Iterator[Parameter]:
    """A parameter for each field of a dataclass that has a form on the command line.

    It is named like the field, and None if the option is absent. Its help is the field's
    paragraph in the docstring.
    """
    texts, types = paragraphs(settings.__doc__), get_type_hints(settings)
    for name in (field.name for field in dataclasses.fields(settings)):
        kind = option_type(types[name])
        if kind is None:
            continue
        text = texts.get(name, "") + (" Repeatable." if kind == list[str] else "")
        option = typer.Option(
            help=escape(text[:1].upper() + text[1:]),
            metavar={bool: "", list[str]: "<str>"}.get(kind),  # None: typer's own
            rich_help_panel=SWITCHES if kind is bool else VALUES,
        )
        annotation = Annotated[kind | None, option]  # type: ignore[valid-type]
        yield Parameter(name, Parameter.KEYWORD_ONLY, default=None, annotation=annotation)


def option_type(annotation: Any) -> Any:
    """What typer reads for a field: a flag, one value or, for a tuple, several; None for others.

    >>> option_type(bool | str), option_type(float), option_type(tuple[str | int, ...])
    (<class 'bool'>, <class 'float'>, list[str])
    """
    if get_origin(annotation) is tuple:
        return list[str]
    if get_origin(annotation) is Mapping:
        return None
    choices = get_args(annotation) or (annotation,)
    return next((kind for kind in (bool, float, int, str) if kind in choices), None)


def paragraphs(doc: str | None) -> dict[str, str]:
    """Each "name: text" paragraph of a docstring, on one line; its later lines are indented.

    >>> paragraphs('''Summary.
    ...
    ...     size: of the crop,
    ...         in pixels.
    ...     mean: per channel.
    ...     ''')
    {'size': 'of the crop, in pixels.', 'mean': 'per channel.'}
    """
    found = re.findall(r"^(\w+): (.*(?:\n +.*)*)", inspect.cleandoc(doc or ""), re.MULTILINE)
    return {name: " ".join(text.split()) for name, text in found}
