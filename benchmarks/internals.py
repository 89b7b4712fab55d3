"""All that the benchmarks use of Octavo beyond its public names, which are `octavo.__all__`."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, fx, nn

import octavo
from octavo.calibrate.data import calls
from octavo.calibrate.ranges import Ranges
from octavo.convert import Emission, QuantizedWeights, convert
from octavo.graph import ops
from octavo.graph.names import full_name, own_path
from octavo.graph.tensors import constant, new_attribute
from octavo.metrics import Noise
from octavo.quantize import finish, prepare
from octavo.search.sensitivity import rounding_noise
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


@torch.no_grad()
def error_sources(model: nn.Module, batches: Iterable[Any], config: octavo.Config) -> ErrorSources:
    """Quantize a model in these three ways, each tuned as the configuration says."""
    data = calls(batches, model)
    prepared = prepare(model, data, config)
    ranges = Ranges(prepared.sites)
    for call in (*prepared.taken, *data):
        ranges.observe(prepared.graph.flatten(*call))
    weights = QuantizedWeights(prepared.graph.module, prepared.sites.weight_spec)
    emission, samples = convert(prepared.sites, ranges, weights), prepared.samples.tuning
    noise, _, _ = rounding_noise(emission, samples)
    return ErrorSources(
        finish(prepared, ranges),
        _tuned(emission, "weights", samples),
        _tuned(emission, "activations", samples),
        [(full_name(node), energy) for node, energy in noise.most_common()],
    )


def _tuned(emission: Emission, part: str, samples: Any) -> fx.GraphModule:
    """The graph with int8 weights only or with int8 activations only, tuned."""
    config = emission.sites.config
    methods = [round_weights] if part == "weights" and config.round_weights else []
    methods += [correct_biases] if config.correct_biases else []
    return tune_layers(PartlyInt8(**vars(emission), part=part), samples, *methods).module


@dataclass(frozen=True)
class PartlyInt8(Emission):
    """An emission that, whenever it is emitted anew, has only its `part` in int8.

    part: "weights" or "activations".
    """

    part: str

    def again(self) -> Emission:
        """The graph anew, partly in int8."""
        emission = super().again()
        graph = emission.module.graph
        if self.part == "weights":
            _remove_activation_rounding(graph)
        else:
            _restore_float_weights(emission)
        graph.eliminate_dead_code()
        emission.module.recompile()
        return emission


def _remove_activation_rounding(graph: fx.Graph) -> None:
    for node in graph.nodes:
        rounds = node.target in (ops.quantize, *ops.HINTS)
        if rounds or (node.target is ops.dequantize and node.args[0].op != "get_attr"):
            node.replace_all_uses_with(node.args[0])


def _restore_float_weights(emission: Emission) -> None:
    source, graph = emission.sites.graph.module, emission.module
    for rule in emission.sites.weighted():
        if rule.root not in emission.copies:
            continue
        layer = emission.copies[rule.operator]
        for weight in rule.weights():
            with graph.graph.inserting_before(layer):
                path = own_path("unrounded", layer.name, weight.name)
                new = new_attribute(graph, path, constant(source, weight))
            layer.replace_input_with(layer.args[rule.operator.args.index(weight)], new)
