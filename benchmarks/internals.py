"""All that the benchmarks use of Octavo beyond its public names, which are `octavo.__all__`."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

import torch
from torch import Tensor, fx, nn

import octavo
from octavo.calibrate.data import calls
from octavo.graph import ops
from octavo.graph.names import full_name, own_path
from octavo.graph.tensors import attribute, new_attribute
from octavo.metrics import Noise
from octavo.quantizer import Quantizer
from octavo.search.sensitivity import rounding_noise
from octavo.stages import Calibration
from octavo.tune.biases import correct_biases
from octavo.tune.layerwise import tune_layers
from octavo.tune.rounding import round_weights


def sqnr_of_all(pairs: Iterable[tuple[Tensor, Tensor]]) -> float:
    """SQNR in dB of many values together; pairs: a reference and the value to compare with it."""
    noise = Noise()
    for reference, value in pairs:
        noise.add(reference, value)
    return noise.sqnr


# ---- what the OpenVINO engine has compiled


def openvino_model(compiled: Any) -> Any:
    """The `openvino.Model` behind what `QuantizedModel.compile()` returned."""
    return compiled.model


def openvino_compiled_model(compiled: Any, x: Tensor) -> Any:
    """The `openvino.CompiledModel` that serves inputs of the shape of `x`."""
    return compiled.compiled((tuple(x.shape),))


# ---- where the error of a quantized model comes from


class ErrorSources(NamedTuple):
    """A model in int8, with int8 weights only, and with int8 activations only.

    rounding_noise: for each int8 activation where it is computed ("layer1.0.conv1/conv2d_1") and
        the energy that its rounding alone brings to the output, the largest first.
    """

    int8: octavo.QuantizedModel
    int8_weights: fx.GraphModule
    int8_activations: fx.GraphModule
    rounding_noise: list[tuple[str, float]]


def error_sources(model: nn.Module, batches: Iterable[Any], config: octavo.Config) -> ErrorSources:
    """Quantize a model in these three ways, each tuned as the configuration says."""
    quantizer = Quantizer(model, config=config)
    data = list(calls(batches, model))
    with torch.no_grad():
        quantizer.capture(*data[:2])
        calibration = Calibration(quantizer)
        for call in data:
            calibration.observe(call)
        int8 = calibration.finish()
    weights, activations = (_partly_int8(calibration, part) for part in ("weights", "activations"))
    return ErrorSources(int8, weights, activations, _rounding_noise(calibration))


def _partly_int8(calibration: Calibration, part: str) -> fx.GraphModule:
    """The graph with int8 weights only or with int8 activations only, tuned."""
    quantizer = calibration.quantizer  # of the equalized graph, where that was kept
    config, graph = quantizer.config, quantizer.quantize()
    if part == "weights":
        _remove_activation_rounding(graph)
    else:
        _restore_float_weights(quantizer, graph)
    graph.graph.eliminate_dead_code()
    graph.recompile()
    methods = [round_weights] if part == "weights" and config.round_weights else []
    methods += [correct_biases] if config.correct_biases else []
    tune_layers(quantizer, graph, calibration.evidence.tuning, *methods)
    return graph


def _remove_activation_rounding(graph: fx.GraphModule) -> None:
    for node in graph.graph.nodes:
        rounds = node.target in (ops.quantize, *ops.HINTS)
        if rounds or (node.target is ops.dequantize and node.args[0].op != "get_attr"):
            node.replace_all_uses_with(node.args[0])


def _restore_float_weights(quantizer: Quantizer, graph: fx.GraphModule) -> None:
    for rule in quantizer.weighted_sites():
        layer = quantizer.conversion.copies[rule.operator]
        for weight in rule.weights():
            value = attribute(quantizer.module, weight.target).detach()
            with graph.graph.inserting_before(layer):
                path = own_path("unrounded", layer.name, weight.name)
                new = new_attribute(graph, path, value)
            layer.replace_input_with(layer.args[rule.operator.args.index(weight)], new)


def _rounding_noise(calibration: Calibration) -> list[tuple[str, float]]:
    """Estimated on the samples tuned on, of the graph with all weights and activations in int8."""
    quantizer = calibration.quantizer
    quantizer.quantize()
    of_values, _, _ = rounding_noise(quantizer, calibration.evidence.tuning)
    nodes = {n.name: n for n in quantizer.graph.nodes}
    return [(full_name(nodes[name]), energy) for name, energy in of_values.most_common()]
