"""`quantize`: the stages in order. Read this first.

    capture    nn.Module + calls          -> FloatGraph      octavo/capture
    passes     FloatGraph                 -> FloatGraph      octavo/passes
    match      FloatGraph, patterns       -> Sites           octavo/sites
    observe    Sites, calls               -> Ranges          octavo/calibrate
    choose     Sites, Ranges              -> QParams         octavo/convert
    emit       Sites, QParams             -> Emission        octavo/convert
    tune       Emission, samples          -> Tuned           octavo/tune
    search     all of these               -> which sites stay float      octavo/search

Each stage returns a new value and does not modify its input.
"""

from __future__ import annotations

import copy
import dataclasses
import functools
import itertools
import time
import warnings
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from functools import partial
from typing import Any, overload

import torch
from torch import nn

from .calibrate.compiled import Calibration
from .calibrate.data import calls
from .calibrate.mistakes import check_model, explain_call
from .calibrate.ranges import Ranges, multiply_adds_of
from .calibrate.samples import Samples, keep_samples, labels_of
from .capture.export import capture
from .capture.float_graph import FloatGraph
from .capture.free_sizes import FreeSizes
from .capture.images import Image, Images, with_images
from .capture.probes import with_probes, without_probes
from .capture.signature import BatchDim, Call
from .capture.submodules import SubmoduleCalls
from .config import Config, as_config
from .convert import Emission, QuantizedWeights, convert
from .details import find_details
from .engines.base import compile_graph
from .errors import ConfigError, DataError, OctavoError, SaveWarning
from .graph.saveable import unsaveable
from .metrics import FloatReference, Step
from .model import QuantizedModel, QuantizedParts
from .passes import run_passes
from .progress import number_of_calls, tracked, working
from .report import make_report
from .search.best import MEASURED, PLAIN, Recipe, Search
from .search.dynamic import choose_activations
from .search.fallback import Evaluate, Fallback, check_evaluation, goals_of
from .search.latency import choose_for_latency
from .search.recurrent import choose_integer_layers
from .search.refine import refined, with_ranges_of
from .sites.sites import Sites, match
from .threads import fitting_threads
from .tune.tune import Tuned, equalize_if_better, tune


@overload
def quantize(
    model: nn.Module,
    data: Any,
    config: Config | str | None = ...,
    *,
    target_sqnr: float | None = ...,
    seconds: float | None = ...,
    evaluate: Evaluate | None = ...,
    max_drop: float = ...,
    progress: bool = ...,
    dynamic_shapes: Any = ...,
    batch_dim: BatchDim = ...,
    inputs: Image | Images | None = ...,
    groups: Iterable[Hashable] | None = ...,
) -> QuantizedModel:
    """Quantize a whole model."""


@overload
def quantize(
    model: nn.Module,
    data: Any,
    config: Config | str | None = ...,
    *,
    submodules: Sequence[str],
    target_sqnr: float | None = ...,
    progress: bool = ...,
) -> QuantizedParts:
    """Quantize the named submodules of a model."""


@torch.no_grad()
def quantize(
    model: nn.Module,
    data: Any,
    config: Config | str | None = None,
    *,
    submodules: Sequence[str] | None = None,
    target_sqnr: float | None = None,
    seconds: float | None = None,
    evaluate: Evaluate | None = None,
    max_drop: float = 0.005,
    progress: bool = True,
    dynamic_shapes: Any = None,
    batch_dim: BatchDim = "auto",
    inputs: Image | Images | None = None,
    groups: Iterable[Hashable] | None = None,
) -> QuantizedModel | QuantizedParts:
    """Quantize a trained float model to int8, calibrated on a few hundred samples.

    >>> import octavo, torch
    >>> net = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.ReLU())
    >>> q = octavo.quantize(net, [torch.rand(4, 3, 16, 16) for _ in range(8)])
    >>> q(torch.rand(2, 3, 16, 16)).shape
    torch.Size([2, 8, 14, 14])

    model: any nn.Module that torch.export can capture. It is quantized in eval mode, whatever its
        mode, and is never changed.
    data: calibration data. A tensor is one batch; a tuple or dict is the positional or keyword
        inputs of one call; any other iterable, such as a DataLoader, yields such batches, each read
        once. Inside an iterable, items beyond the arguments that the model takes (the labels of a
        DataLoader) are ignored.
        Calls may be of any batch size. Another size (a sequence's length) may differ from call
        to call if it does in the first two batches, or if it is the length of token ids.
    submodules: quantize only these, by path, each calibrated on its inputs while the whole model
        runs: for models that torch.export cannot capture whole. Returns a `QuantizedParts`.
    config: a `Config`, or "fast" (ranges only), "balanced" (the default: also equalization, weight
        rounding and bias correction) or "best" (a search for better settings on top of it).
    target_sqnr: in dB; keep as few operators float as it takes for the output's SQNR to reach it.
    seconds: time for the search for better settings, as `Config.search_seconds`.
    evaluate: a function that takes a model, called like yours, and returns a number, higher is
        better: keep as few operators float as it takes for the number to drop by no more than
        `max_drop`. It should use data outside the calibration data; it is called about ten times.
    progress: show on a terminal what is done, with a bar during calibration.
    dynamic_shapes: sizes that may differ from call to call, in the form of torch.export, such as
        {"x": {0: Dim("batch"), 1: Dim("length", max=512)}}; all others are fixed. By default they
        are inferred, as said under `data`. Either way the captured graph is compared with the
        model at other values of these sizes.
    batch_dim: the dimension of the inputs that counts samples: 0, or 1 for (time, batch, features);
        None if there is none, so that each call is one sample. By default it is the first or the
        second dimension, if the outputs show that samples do not influence each other.
    inputs: an `Image`, for a quantized model that takes uint8 images and normalizes them itself; a
        dict of them by argument, if it is not the first. `data` may hold such bytes, or images
        normalized as the float model takes them.
    groups: a label for each sample of `data`, in its order, such as the photo that a crop is of or
        the clip of a frame. Samples of one label are not divided between those to tune with and
        those to judge by, and "best" takes them for one piece of evidence. Without labels, samples
        that belong together should follow each other.

    Activations become uint8 with one scale and zero_point per tensor, weights int8 with one
    scale per output channel; operators without a rule stay float and the report says why.
    Raises an OctavoError: DataError, CaptureError (the model cannot be exported) or ConfigError.
    """
    check_model(model)
    check_evaluation(evaluate, max_drop)
    config = as_config(config)
    if target_sqnr is not None:
        config = dataclasses.replace(config, target_sqnr=target_sqnr)
    if seconds is not None:
        config = dataclasses.replace(config, search_seconds=seconds)
    if inputs is not None:
        model = with_images(model, inputs)
    batches = calls(data, model)
    labels = None if groups is None else labels_of(groups)
    free = FreeSizes(dynamic_shapes, batch_dim)
    if submodules is not None:
        if evaluate is not None:
            raise ConfigError("evaluate is for whole models: with submodules give target_sqnr")
        if free != FreeSizes() or inputs is not None or groups is not None:
            raise ConfigError(
                "dynamic_shapes, batch_dim, inputs and groups are for whole models, not submodules"
            )
        shown = tracked(batches, "calibrating", number_of_calls(data), progress)
        return _quantize_submodules(model, submodules, shown, config)

    with fitting_threads(), working("capturing, and trying settings", progress):
        # capture, passes, match; equalized
        prepared = prepare(model, batches, config, free, labels)
    every = itertools.chain(prepared.taken, batches)
    number = number_of_calls(data)
    with fitting_threads():
        ranges = observe(prepared, tracked(every, "calibrating", number, progress), number)
    shows_itself = config.search_seconds > 0  # what it tries
    with fitting_threads(), working("choosing, emitting and tuning", progress and not shows_itself):
        return finish(prepared, ranges, evaluate, max_drop, progress)  # and search, report


@dataclasses.dataclass(frozen=True)
class Prepared:
    """The result of the stages before observing.

    taken: calls of the data that were read for this and are still to be observed.
    steps: equalization, if it was tried, and what it gained.
    """

    model: nn.Module
    graph: FloatGraph
    sites: Sites
    samples: Samples
    taken: list[Call]
    steps: tuple[Step, ...]


def prepare(
    model: nn.Module,
    data: Iterator[Call],
    config: Config,
    free: FreeSizes | None = None,
    labels: Iterable[Hashable] | None = None,
) -> Prepared:
    """The stages up to observing: capture with the first two calls, passes, match, equalize.

    labels: of the samples, see `keep_samples`.
    """
    first = list(itertools.islice(data, 2))
    try:
        captured = capture(model, *first[0], first[1:], free)
    except DataError as e:  # the model itself does not take the first call
        raise DataError(
            explain_call(model, first[0], e.__cause__ if isinstance(e.__cause__, Exception) else e)
        ) from e
    graph = with_probes(run_passes(captured))
    if faults := unsaveable(graph.graph):
        warnings.warn(f"octavo.save will refuse this model: {faults[0]}", SaveWarning, stacklevel=5)
    sites = match(graph, config=config)
    rest = iter(first)
    samples, taken = keep_samples(
        graph,
        itertools.chain(rest, data),
        config.tune_samples,
        config.measure_samples,
        config.memory,
        divided=config.search_seconds > 0,
        labels=labels,
    )
    steps: tuple[Step, ...] = ()
    chooses = config.activations == "auto"
    equalizes = any(s.equalize for s in sites.settings.values())
    one = samples.subset(1).measuring[0]
    macs = multiply_adds_of(sites, one) if chooses or equalizes else {}
    if chooses:
        assert graph.signature is not None  # captured by torch.export
        compile = partial(compile_graph, signature=graph.signature)
        sites, steps = choose_activations(sites, samples, compile, macs)
        sites, tried = choose_integer_layers(sites, samples, compile, macs)
        steps = (*steps, *tried)
    if equalizes:
        sites, tried = equalize_if_better(sites, samples, sum(macs.values()))
        steps = (*steps, *tried)
    return Prepared(model, sites.graph, sites, samples, [*taken, *rest], steps)


def observe(prepared: Prepared, batches: Iterable[Call], number: int | None = None) -> Ranges:
    """The ranges of all values over these calls, whose number may be known."""
    ranges, signature = Ranges(prepared.sites), prepared.graph.signature
    assert signature is not None  # captured by torch.export
    calibration = Calibration(ranges, partial(compile_graph, signature=signature), number)
    for call in batches:
        calibration.observe(prepared.graph.flatten(*call))
    return ranges


def finish(
    prepared: Prepared,
    ranges: Ranges,
    evaluate: Evaluate | None = None,
    max_drop: float = 0.0,
    progress: bool = False,
) -> QuantizedModel:
    """The stages after observing: choose and emit, tune, and search until the goals are reached."""
    graph, sites, samples = prepared.graph, prepared.sites, prepared.samples
    config, signature = sites.config, graph.signature
    assert signature is not None  # captured by torch.export
    convert_sites = partial(convert, ranges=ranges, weights=_weights_of(prepared))
    compile = partial(compile_graph, signature=signature)
    if config.optimize == "latency":
        inputs = samples.subset(1).measuring[0]
        sites = choose_for_latency(convert_sites(sites), convert_sites, compile, inputs)
    in_time = partial(_is_before, time.monotonic() + config.search_seconds)
    attempt = attempt_of(prepared, ranges, in_time)
    recipe, first = PLAIN, None
    if config.search_seconds:
        search = Search(attempt, convert_sites, compile, samples, in_time)
        recipe, first = search.best(sites, progress)
    goals = goals_of(config, evaluate, max_drop, compile, graph.module)
    untuned = FloatReference(graph.module, samples.measuring)
    fallback = Fallback(
        partial(attempt, recipe=recipe),
        samples,
        ranges.macs,
        lambda sites: untuned.noise(convert_sites(sites).module).ratio,
    )
    tuned = fallback.reach(sites, goals, first)
    steps = prepared.steps + tuned.steps
    details = find_details(tuned.emission, samples, ranges)
    report = make_report(prepared.model, tuned, details, ranges.macs, steps)
    return QuantizedModel(
        without_probes(tuned.emission.module, signature), signature, config, report
    )


def _is_before(deadline: float) -> bool:
    return time.monotonic() < deadline


def attempt_of(
    prepared: Prepared, ranges: Ranges, in_time: Callable[[], bool] = lambda: True
) -> Callable[..., Tuned]:
    """A function that converts and tunes given sites by a recipe, and measures the noise.

    in_time: whether there is time left to refine ranges with further samples.
    """
    samples = prepared.samples
    if prepared.sites.config.search_seconds:  # of which there are many, to judge by
        samples = samples.to_measure(MEASURED)
    reference = FloatReference(prepared.graph.module, samples.measuring)
    weights = _weights_of(prepared)
    ranges_by = functools.cache(lambda observer: ranges.by(observer) if observer else ranges)
    once: dict[str, Emission] = {}  # refined, by observer: others take over its ranges

    def attempt(sites: Sites, recipe: Recipe = PLAIN) -> Tuned:
        seen = ranges_by(recipe.observer)
        emission = convert(sites, seen, weights)
        if recipe.refined and recipe.observer in once:
            emission = with_ranges_of(emission, once[recipe.observer])
        elif recipe.refined:
            emission = refined(emission, seen, samples, in_time)
            once[recipe.observer] = emission
        return tune(emission, samples.to_tune(recipe.samples), reference)

    return attempt


def _weights_of(prepared: Prepared) -> QuantizedWeights:
    return QuantizedWeights(prepared.graph.module, prepared.sites.weight_spec)


def _quantize_submodules(
    model: nn.Module, paths: Sequence[str], batches: Iterable[Call], config: Config
) -> QuantizedParts:
    """Quantize submodules, each calibrated on its calls while the whole model runs."""
    model = copy.deepcopy(model).eval()
    seen = SubmoduleCalls(model, paths, batches)
    prepared: dict[str, Prepared] = {}
    for path, module in seen.modules.items():
        calls = seen.calls(path)
        first = next(calls, None)
        if first is None:
            raise DataError(f"submodule {path!r} was not called by any calibration batch")
        try:
            prepared[path] = prepare(module, itertools.chain([first], calls), config)
        except OctavoError as e:
            raise type(e)(f"submodule {path!r}: {e}") from e
    ranges = {path: Ranges(p.sites) for path, p in prepared.items()}
    for path, p in prepared.items():
        for call in p.taken:
            ranges[path].observe(p.graph.flatten(*call))
    more = True
    while more:
        for path, p in prepared.items():
            for call in seen.queued(path):
                ranges[path].observe(p.graph.flatten(*call))
        more = seen.run_batch()
    seen.close()
    return QuantizedParts(model, {path: finish(p, ranges[path]) for path, p in prepared.items()})
