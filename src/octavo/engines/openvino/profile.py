"""Time spent in each operator of a compiled model, measured by the engine."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ...errors import EngineError
from ..base import EngineModel, Program, compile_program
from ..base import ProfiledOperator as Operator

if TYPE_CHECKING:
    import openvino

__all__ = ["Operator", "executed_operators", "profile"]


def profile(model: Any, *args: Any, rounds: int = 50, **kwargs: Any) -> list[Operator]:
    """The operators that one call executes, the most expensive first.

    model: a `QuantizedModel`, or what its `compile()` returned, whose settings are kept.
    args, kwargs: inputs of the call. rounds: how many calls to average the times over.
    Raises EngineError for a model that OpenVINO does not run.

    >>> from octavo.bench import profile
    >>> q = octavo.quantize(nn.Linear(4, 2), torch.rand(8, 4))
    >>> "FullyConnected" in {operator.kind for operator in profile(q, torch.rand(8, 4))}
    True
    """
    if isinstance(model, Program) and not isinstance(model, EngineModel):
        model = compile_program(model)
    operators = None
    if isinstance(model, EngineModel):
        operators = model.profile(model.flatten(args, kwargs), rounds)
    if operators is None:
        raise EngineError(
            "profile takes a QuantizedModel, or what its compile('openvino') returned, not a "
            f"{type(model).__name__}: no other engine keeps the time of each operator. Of a model "
            "quantized in parts, profile each of `.parts`"
        )
    return operators


def executed_operators(
    built: openvino.Model, compiled: openvino.CompiledModel, milliseconds: Counter[str]
) -> list[Operator]:
    """The operators that ran, the most expensive first.

    built: the model that was compiled. milliseconds: per call, by name of the executed operator.
    """
    names = _names(built)
    found = [
        _operator(node, names, milliseconds[node.get_friendly_name()])
        for node in compiled.get_runtime_model().get_ordered_ops()
        if node.get_friendly_name() in milliseconds
    ]
    return sorted(found, key=lambda operator: -operator.milliseconds)


def _names(model: openvino.Model) -> dict[str, str]:
    """Name of each node of the built model -> module.path/node.

    A node without a name of its own gets the name of the node that reads it: a bias that of its
    convolution.
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
    """The nodes of the built model that an executed operator computes, itself first."""
    found = []
    for name in node.get_rt_info()["originalLayersNames"].astype(str).split(","):
        while name and name not in names:  # OpenVINO appends: "conv/DequantizationMultiply"
            name = name.rpartition("/")[0]
        found.append(names.get(name, ""))
    return tuple(dict.fromkeys(filter(None, found)))
