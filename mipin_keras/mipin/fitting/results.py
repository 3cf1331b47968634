"""What a fit has found so far: the weights by class and node, and a line of the report for each."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import tensorflow as tf

from ..inverse import Weights
from ..inverse_graph import Node
from ..network import InverseNetwork
from .members import Members


class Results:
    """The results of a fit.

    Args:
        network: The inverse network.
        members: Which samples fit which class.
        classes: The classes that are fitted.
        log: Says a line for each layer and class; None for silence.

    Attributes:
        weights: float32 weights by class and node index, for
            ``InverseNetwork.weights``.
        lines: The report's entries, by node index and class.
    """

    def __init__(
        self, network: InverseNetwork, members: Members, classes: list[int], log: Callable[[str], None] | None = None
    ):
        self._network, self._members, self._log = network, members, log
        self.weights: dict[int, dict[int, Weights]] = {c: {} for c in classes}
        self.lines: dict[tuple[int, int], dict[str, Any]] = {}

    def missing(self, position: int) -> list[int]:
        """The classes that a learned node, by its position, has no weights of yet."""
        node = self._network.learned[position]
        return [c for c, weights in self.weights.items() if node.index not in weights]

    def keep(self, node: Node, neuron: int, weights: Any, mse: float, variance: float, rows: int) -> None:
        """Keep a class' fitted weights for a node, and the error that they leave."""
        self.weights[neuron][node.index] = tuple(tf.constant(w, tf.float32) for w in weights)
        line = error_line(node, neuron, self._members.count(neuron), rows, mse, variance)
        self.lines[node.index, neuron] = line
        if self._log is not None:
            self._log(f"  class {neuron}: error {mse:.4g}, {line['relative']:.1%} of the variance")

    @property
    def report(self) -> list[dict[str, Any]]:
        """One entry for each layer and class, from the logit down."""
        order = {node.index: position for position, node in enumerate(self._network.learned)}
        return [self.lines[key] for key in sorted(self.lines, key=lambda key: (order[key[0]], key[1]))]


def error_line(node: Node, neuron: int, samples: int, rows: int, mse: float, variance: float) -> dict[str, Any]:
    """One entry of a fit report."""
    return {
        "class": neuron,
        "layer": node.name,
        "type": node.type,
        "samples": samples,
        "rows": rows,
        "mse": mse,
        "variance": variance,
        # A constant input is reconstructed by the bias alone.
        "relative": mse / variance if variance > 0 else 0.0,
    }
