"""The exceptions Octavo raises: `except octavo.OctavoError` catches them all."""

import difflib
from collections.abc import Iterable


class OctavoError(Exception):
    """Base of every error Octavo raises on purpose; the message says what to do."""


class CaptureError(OctavoError):
    """The model could not be captured by torch.export, or got arguments unlike those at capture."""


class DataError(OctavoError):
    """Calibration data is missing, of the wrong shape or type, or not finite."""


class ConfigError(OctavoError):
    """A setting is unknown or out of range, or a name in it matches nothing."""


class PatternError(OctavoError):
    """A pattern given to `register_pattern` or `Quantizer` is malformed."""


class ConversionError(OctavoError):
    """A captured graph could not be turned into a quantized one."""


class EngineError(OctavoError):
    """An engine is unknown, not installed, or cannot run the graph."""


class FormatError(OctavoError):
    """A file is not an Octavo file, is damaged, or holds what the loader does not allow."""


class CollapseWarning(UserWarning):
    """Sites fell back to float because the quantized output had lost too much accuracy."""


class RangeWarning(UserWarning):
    """The first call of a model has inputs of another scale than the calibration data."""


class SaveWarning(UserWarning):
    """A file cannot hold all of a model: one of its operators, or a condition on input sizes."""


class PartitionWarning(UserWarning):
    """OpenVINO cannot run all of a model, or not in the fastest way."""


def near_names(name: str, known: Iterable[str]) -> str:
    """For a message about an unknown name: similar names, and the known ones."""
    everything = sorted(known)
    near = difflib.get_close_matches(name, everything, 8, 0.4)
    there = f"There are: {', '.join(everything[:40])}"
    return f"Near names: {', '.join(near)}. {there}" if near else there


def one_line(error: BaseException) -> str:
    """An exception's kind and reason, in one line; of a DataLoader's worker, what it raised.

    >>> one_line(ValueError("too long\\n  by 3"))
    'ValueError: too long'
    """
    lines = [line.strip(" .:") for line in str(error).splitlines() if line.strip(" .:")]
    if lines and lines[0].startswith("Caught "):
        return lines[-1][:300]
    name = type(error).__name__
    return f"{name}: {lines[0][:300]}" if lines else name
