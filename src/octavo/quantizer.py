"""Quantizer: match, observe and quantize as separate steps."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch import fx, nn

from . import legacy
from .calibrate.ranges import Ranges
from .capture.export import capture
from .capture.float_graph import FloatGraph
from .capture.signature import Call
from .config import Config
from .convert import Emission, QuantizedWeights, convert
from .errors import DataError
from .passes import run_passes
from .sites.patterns import DEFAULT_PATTERNS, Handler, Pattern
from .sites.sites import Sites, match


class Quantizer:
    """Match patterns in a model, observe real inputs, emit the quantized graph.

    >>> q = Quantizer(nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU()).eval())
    >>> for _ in range(4):
    ...     _ = q.observe(torch.rand(2, 3, 16, 16))
    >>> quantized = q.quantize()
    >>> quantized(torch.rand(5, 3, 16, 16))[0].shape
    torch.Size([5, 8, 14, 14])

    model: an nn.Module or a GraphModule; it is never changed. If no handler in `patterns` is a
        `Rule`, `torch.fx.symbolic_trace` turns it into a graph of modules and functions; otherwise
        torch.export captures it as a graph of ATen operators at the first `observe`.
    patterns: pattern -> rule, or handler class of torch.fx's original quantizer (see
        `octavo.legacy`); default: all registered.
    quant_ctor: called with (quantizer, node), returns the object that observes and quantizes a
        value, with `DefaultQuant`'s methods; default: Octavo's own observers.

    sites: what was matched; None before the first call. ranges: what was observed. emission: the
    last quantized graph, and how it came from the float one.
    """

    def __init__(
        self,
        model: nn.Module,
        patterns: Mapping[Pattern, Handler] | None = None,
        quant_ctor: Callable[[Quantizer, fx.Node], Any] | None = None,
        config: Config | None = None,
    ) -> None:
        self.model = model
        self.patterns = DEFAULT_PATTERNS if patterns is None else patterns
        self.quant_ctor = quant_ctor
        self.config = config or Config()
        self.sites: Sites | None = None
        self.ranges: Ranges | None = None
        self.emission: Emission | None = None
        self.adapter = legacy.Adapter(self)
        if self.adapter.is_traced:
            self._match(FloatGraph(legacy.traced(model), None))

    def capture(self, call: Call, *others: Call) -> None:
        """Capture the model with this call, and match; `observe` does it when needed.

        Sizes that differ between `call` and `others` are dynamic.
        """
        self._match(run_passes(capture(self.model, *call, others)))

    def _match(self, graph: FloatGraph) -> None:
        patterns = self.adapter.patterns(graph.module)
        self.sites = match(graph, patterns, self.config)
        self.ranges = Ranges(self.sites, self.adapter.watches(self.sites))

    def observe(self, *args: Any, **kwargs: Any) -> Any:
        """Run one batch through the float graph, recording ranges; returns the model's output."""
        if self.sites is None:
            self.capture((args, kwargs))
        assert self.sites is not None and self.ranges is not None
        graph = self.sites.graph
        return graph.unflatten(self.ranges.observe(graph.flatten(args, kwargs)))

    def quantize(self) -> fx.GraphModule:
        """The quantized graph; for a captured model, flat tensors in and a flat tuple out.

        May be called again, also after further calls of `observe`: the same ranges yield the same
        graph. Raises DataError if nothing was observed.
        """
        if self.sites is None or self.ranges is None:
            raise DataError("nothing was observed: call observe(*inputs) before quantize()")
        weights = QuantizedWeights(self.sites.graph.module, self.sites.weight_spec)
        if self.adapter.is_needed:
            self.emission = self.adapter.convert(self.sites, self.ranges, weights)
        else:
            self.emission = convert(self.sites, self.ranges, weights)
        return self.emission.module

    # ---- for handlers of torch.fx's original kind

    @property
    def modules(self) -> dict[str, nn.Module]:
        """The modules of a traced graph by name."""
        return self.adapter.modules

    @property
    def quantized_graph(self) -> fx.Graph:
        """The graph being emitted, for handlers that create nodes themselves."""
        return self.adapter.quantized_graph
