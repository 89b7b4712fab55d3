"""Never return a collapsed model: turn sites float until the output's SQNR holds."""

import warnings
from collections.abc import Mapping, Sequence

from torch import fx

from .capture import module_path
from .errors import CollapseWarning
from .measure import Noise, output_noise
from .quantizer import Quantizer
from .tune.steps import Batches, Converted, convert_tuned


def convert_guarded(quantizer: Quantizer, tuning: Batches, measuring: Batches) -> Converted:
    """Convert and tune, measure, and turn sites float if the output's SQNR is too low.

    Sites are ordered by the noise they add to what they read; of the worst, as few are turned
    float as bisection finds to be enough. Warns (CollapseWarning) of what it did.
    """
    result = convert_tuned(quantizer, tuning, measuring)
    if result.output.sqnr >= quantizer.config.min_sqnr:
        return result
    order = _worst_first(quantizer, result.noises)
    turned = order[: _fewest(quantizer, order, measuring)]
    _set_float(quantizer, turned)
    guarded = convert_tuned(quantizer, tuning, measuring)
    _warn(quantizer, turned, result.output, guarded.output)
    return guarded


def _fewest(quantizer: Quantizer, order: Sequence[str], batches: Batches) -> int:
    """How many of the worst sites must be float: the smallest number found by bisection."""
    references = [quantizer.module(*inputs) for inputs in batches]
    low, high = 1, len(order)
    while low < high:
        middle = (low + high) // 2
        _set_float(quantizer, order[:middle])
        noise = output_noise(quantizer.quantize(), batches, references)
        if noise.sqnr >= quantizer.config.min_sqnr:
            high = middle
        else:
            low = middle + 1
    return high


def _set_float(quantizer: Quantizer, names: Sequence[str]) -> None:
    """Let exactly these sites be the ones the guard turns float."""
    reason = f"for the output's SQNR to reach min_sqnr={quantizer.config.min_sqnr:g} dB"
    others = {n: r for n, r in quantizer.float_reasons.items() if r != reason}
    quantizer.set_float(others | dict.fromkeys(names, reason))


def _worst_first(quantizer: Quantizer, noises: Mapping[str, Noise]) -> list[str]:
    """int8 sites by the noise they add, by reading integers and by int8 weights.

    That is the noise ratio of what they compute, before it is quantized for others, less that of
    the values they read, before those were quantized.
    """
    added = {}
    for name, reads in quantizer.reads.items():
        rule = quantizer.rule_of(quantizer.matches[name][0])
        if name in noises and rule is not None and not rule.lossless:
            origins = [o for n in reads for o in _origins(quantizer, n)]
            known = [noises[o].ratio for o in origins if o in noises]
            added[name] = noises[name].ratio - max(known, default=0.0)
    return sorted(added, key=lambda name: -added[name])


def _origins(quantizer: Quantizer, node: fx.Node) -> list[str]:
    """The values that were quantized for a value to be read as integers."""
    rule = quantizer.rule_of(node)
    if rule is None or not rule.shares_range or node.name not in quantizer.reads:
        return [node.name]
    return [o for n in quantizer.reads[node.name] for o in _origins(quantizer, n)]


def _warn(quantizer: Quantizer, turned: Sequence[str], before: Noise, after: Noise) -> None:
    paths = [module_path(quantizer.covered[name][0]) or name for name in turned]
    warnings.warn(
        f"the quantized output had an SQNR of {before.sqnr:.1f} dB on calibration data; with "
        f"{len(turned)} of its sites float it has {after.sqnr:.1f} dB: {', '.join(paths)}. "
        "The report lists them; more or better calibration data may make this unnecessary",
        CollapseWarning,
        stacklevel=6,  # the call of quantize, past its no_grad
    )
