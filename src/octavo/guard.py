"""Never return a collapsed model: turn sites float until the output's SQNR holds."""

import warnings
from collections.abc import Mapping, Sequence

from torch import Tensor, fx

from .capture import module_path
from .errors import CollapseWarning
from .measure import Noise, compare
from .quantizer import Quantizer

Measured = tuple[fx.GraphModule, dict[str, Noise], Noise]


def convert_guarded(quantizer: Quantizer, batches: Sequence[Sequence[Tensor]]) -> Measured:
    """Convert, measure on `batches`, and turn sites float while the output's SQNR is too low.

    The site that adds most noise to what it reads goes first; after each measurement twice as
    many as before, so that a large model needs few. Returns the quantized graph, the noise of
    each site and that of the output. Warns (CollapseWarning) of what it did.
    """
    first, turned, count = None, [], 1
    while True:
        quantized = quantizer.quantize()
        noises, output = compare(quantizer.module, quantized, quantizer.emitted(), batches)
        first = first or output
        if output.sqnr >= quantizer.config.min_sqnr:
            break
        worst = _worst_first(quantizer, noises)[:count]
        if not worst:
            break
        reason = f"kept the output's SQNR above min_sqnr={quantizer.config.min_sqnr:g} dB"
        quantizer.set_float(dict.fromkeys(worst, reason))
        turned += worst
        count *= 2
    if turned:
        _warn(quantizer, turned, first, output)
    return quantized, noises, output


def _worst_first(quantizer: Quantizer, noises: Mapping[str, Noise]) -> list[str]:
    """int8 sites by the noise they add: their output's noise ratio less that of their inputs."""
    added = {}
    for name, reads in quantizer.reads.items():
        rule = quantizer.rule_of(quantizer.matches[name][0])
        if name in noises and rule is not None and not rule.lossless:
            known = [noises[n.name].ratio for n in reads if n.name in noises]
            added[name] = noises[name].ratio - max(known, default=0.0)
    return sorted(added, key=lambda name: -added[name])


def _warn(quantizer: Quantizer, turned: list[str], first: Noise, output: Noise) -> None:
    paths = [module_path(quantizer.covered[name][0]) or name for name in turned]
    warnings.warn(
        f"the quantized output had an SQNR of {first.sqnr:.1f} dB on calibration data; with "
        f"{len(turned)} sites turned float it has {output.sqnr:.1f} dB: {', '.join(paths)}. "
        "The report lists them; more or better calibration data may make this unnecessary",
        CollapseWarning,
        stacklevel=4,
    )
