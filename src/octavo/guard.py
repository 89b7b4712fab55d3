"""Never return a collapsed model: turn sites float until the output's SQNR holds."""

import warnings
from collections.abc import Mapping, Sequence

from torch import Tensor, fx

from .capture import module_path
from .errors import CollapseWarning
from .measure import Noise, compare, output_noise
from .quantizer import Quantizer

Measured = tuple[fx.GraphModule, dict[str, Noise], Noise]


def convert_guarded(quantizer: Quantizer, batches: Sequence[Sequence[Tensor]]) -> Measured:
    """Convert, measure on `batches`, and turn sites float if the output's SQNR is too low.

    Sites are ordered by the noise they add to what they read; of the worst, as few are turned
    float as bisection finds to be enough. Returns the quantized graph, the noise of each site
    and that of the output. Warns (CollapseWarning) of what it did.
    """
    quantized = quantizer.quantize()
    noises, output = compare(quantizer.module, quantized, quantizer.emitted(), batches)
    if output.sqnr >= quantizer.config.min_sqnr:
        return quantized, noises, output
    order = _worst_first(quantizer, noises)
    count = _fewest(quantizer, order, batches)
    quantized = _with_float(quantizer, order[:count])
    noises, after = compare(quantizer.module, quantized, quantizer.emitted(), batches)
    _warn(quantizer, order[:count], output, after)
    return quantized, noises, after


def _fewest(quantizer: Quantizer, order: Sequence[str], batches: Sequence[Sequence[Tensor]]) -> int:
    """How many of the worst sites must be float: the smallest number found by bisection."""
    references = [quantizer.module(*inputs) for inputs in batches]
    low, high = 1, len(order)
    while low < high:
        middle = (low + high) // 2
        quantized = _with_float(quantizer, order[:middle])
        if output_noise(quantized, batches, references).sqnr >= quantizer.config.min_sqnr:
            high = middle
        else:
            low = middle + 1
    return high


def _with_float(quantizer: Quantizer, names: Sequence[str]) -> fx.GraphModule:
    """Convert with exactly these sites turned float by the guard."""
    reason = f"for the output's SQNR to reach min_sqnr={quantizer.config.min_sqnr:g} dB"
    others = {n: r for n, r in quantizer.float_reasons.items() if r != reason}
    quantizer.set_float(others | dict.fromkeys(names, reason))
    return quantizer.quantize()


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
