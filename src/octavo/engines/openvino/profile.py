"""Where the time of a compiled model goes: OpenVINO's own clock for each operator it executes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from torch import Tensor

from ...errors import EngineError
from ...model import QuantizedModel
from .engine import CompiledModel

if TYPE_CHECKING:
    import openvino


@dataclass(frozen=True)
class Operator:
    """One operator of a compiled model as it is executed.

    path: module it comes from, "" for the model itself; a reorder belongs to what reads it.
    kind: "Convolution", "FullyConnected", "Reorder", "Subgraph" (several, compiled as one), ...
    kernel: what computes it, by OpenVINO's name, such as "brgconv_avx512_I8".
    reads, gives: types of its first input and output: "u8", "i8", "f32", ...
    nodes: what it computes, as module.path/node of the quantized graph; more than one is fused.
    milliseconds: per call, averaged over the calls.
    """

    path: str
    kind: str
    kernel: str
    reads: str
    gives: str
    nodes: tuple[str, ...]
    milliseconds: float


def profile(model: Any, *args: Any, rounds: int = 50, **kwargs: Any) -> list[Operator]:
    """The operators that one call executes, the most expensive first.

    model: a `QuantizedModel`, or what its `compile()` returned, whose settings are kept.
    args, kwargs: inputs of the call. rounds: how many calls to average the times over.
    Raises EngineError for what OpenVINO does not run.

    >>> from octavo.bench import profile
    >>> q = octavo.quantize(nn.Linear(4, 2), torch.rand(8, 4))
    >>> "FullyConnected" in {operator.kind for operator in profile(q, torch.rand(8, 4))}
    True
    """
    if isinstance(model, QuantizedModel):
        model = model.compile()
    if not isinstance(model, CompiledModel):
        raise EngineError(
            "profile takes a QuantizedModel, or what its compile('openvino') returned, not a "
            f"{type(model).__name__}: no other engine keeps the time of each operator. Of a model "
            "quantized in parts, profile each of `.parts`"
        )
    return profile_flat(model, model.flatten(args, kwargs), rounds)


def profile_flat(model: CompiledModel, inputs: Sequence[Tensor], rounds: int) -> list[Operator]:
    """`profile` with the flat inputs of a call."""
    timed = CompiledModel(
        model.core, model.model, model.signature, model.settings | {"PERF_COUNT": True}
    )
    timed.run(inputs)  # compiles
    (request,) = (r.request for r in timed.local.requests.values())
    seconds: Counter[str] = Counter()
    for _ in range(rounds):
        timed.run(inputs)
        for node in request.get_profiling_info():
            if node.status.name == "EXECUTED":
                seconds[node.node_name] += node.real_time.total_seconds()
    names = _names(timed.model)
    executed = request.get_compiled_model().get_runtime_model().get_ordered_ops()
    found = [
        _operator(node, names, 1e3 * seconds[node.get_friendly_name()] / rounds)
        for node in executed
        if node.get_friendly_name() in seconds
    ]
    return sorted(found, key=lambda operator: -operator.milliseconds)


def _names(model: openvino.Model) -> dict[str, str]:
    """Name of each node of the model as it was built -> module.path/node.

    What has no name of its own is part of what reads it: a convolution of its bias.
    """
    names: dict[str, str] = {}
    for node in reversed(model.get_ordered_ops()):
        name = node.get_friendly_name()
        readers = [names[r.get_friendly_name()] for r in _readers(node)]
        names[name] = (readers or [""])[0] if name == node.get_name() else name
    return names


def _readers(node: openvino.Node) -> list[openvino.Node]:
    return [i.get_node() for output in node.outputs() for i in output.get_target_inputs()]


def _operator(node: openvino.Node, names: Mapping[str, str], milliseconds: float) -> Operator:
    info = {k: v.astype(str) for k, v in node.get_rt_info().items()}
    nodes = _nodes(node, names)
    origin = nodes or next((n for r in _readers(node) if (n := _nodes(r, names))), ("",))
    return Operator(
        path=origin[0].rpartition("/")[0],
        kind=info["layerType"],
        kernel=info["primitiveType"],
        reads=info["runtimePrecision"],
        gives=info["outputPrecisions"].split(",")[0],
        nodes=nodes,
        milliseconds=milliseconds,
    )


def _nodes(node: openvino.Node, names: Mapping[str, str]) -> tuple[str, ...]:
    """The nodes of the built model that an executed one computes, itself first."""
    found = []
    for name in node.get_rt_info()["originalLayersNames"].astype(str).split(","):
        while name and name not in names:  # OpenVINO appends: "conv/DequantizationMultiply"
            name = name.rpartition("/")[0]
        found.append(names.get(name, ""))
    return tuple(dict.fromkeys(filter(None, found)))
