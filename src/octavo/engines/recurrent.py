"""The arguments of recurrent layers, as PyTorch's operators have them, for all engines."""

from __future__ import annotations

from typing import Any, NamedTuple


class Layers(NamedTuple):
    """A call of `aten.lstm`, `gru`, `rnn_tanh` or `rnn_relu`: several layers, in evaluation.

    states: one tensor, or two of an LSTM. weights: those of every layer and direction in turn.
    """

    x: Any
    states: Any
    weights: Any
    has_biases: bool
    num_layers: int
    dropout: float
    train: bool
    bidirectional: bool
    batch_first: bool

    @property
    def directions(self) -> int:
        """How many directions each layer has."""
        return 2 if self.bidirectional else 1

    @property
    def each(self) -> int:
        """How many weights a layer has in one direction."""
        return len(self.weights) // (self.num_layers * self.directions)

    def of(self, layer: int) -> tuple[slice, list[Any]]:
        """The states of a layer, among all, and its weights for each direction."""
        own = slice(layer * self.directions, (layer + 1) * self.directions)
        each = self.each
        return own, [self.weights[i * each : (i + 1) * each] for i in range(own.start, own.stop)]
