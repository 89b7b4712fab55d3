"""The stages one by one, as tests want them."""

import torch

import octavo
from octavo import Config, Quantizer
from octavo.calibrate.ranges import Ranges
from octavo.capture.export import capture
from octavo.capture.float_graph import FloatGraph
from octavo.convert import QuantizedWeights, convert
from octavo.graph.names import operator_name
from octavo.passes import run_passes
from octavo.sites.sites import match


def passed(net, *inputs):
    """The module of the graph after all passes."""
    return run_passes(capture(net.eval(), inputs)).module


def rewritten(module):
    """A captured module after all passes."""
    return run_passes(FloatGraph(module, None)).module


def matched(net, *inputs, **settings):
    """The sites of a network."""
    return match(run_passes(capture(net.eval(), inputs)), config=Config(**settings))


@torch.no_grad()
def converted(net, batches, **settings):
    """The emission of a network calibrated with single inputs."""
    sites = matched(net, batches[0], **settings)
    ranges = Ranges(sites)
    for x in batches:
        ranges.observe([x])
    return convert(sites, ranges, QuantizedWeights(sites.graph.module, sites.weight_spec))


def quantize(net, x):
    """A network quantized by the extremes of one batch, however noisy the result."""
    return octavo.quantize(net.eval(), x, config=Config(observer="minmax", min_sqnr=0))


def rows(q):
    """operator -> row of the report."""
    return {r.operator: r for r in q.report().rows}


def quantized(net, *batches, **options):
    quantizer = Quantizer(net, **options)
    for b in batches:
        quantizer.observe(b)
    return quantizer, quantizer.quantize()


def named(graph, name):
    return [n for n in graph.nodes if operator_name(n) == name]
