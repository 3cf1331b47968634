"""The cost of a fit: how much there is to learn, and a guess of its time from its first layer."""

from __future__ import annotations

import math
from typing import NamedTuple

from ...graph.model_graph import Step
from ..inverse_graph import Node
from ..network import InverseNetwork

# Measured on two cores, and only as good as a guess needs: seconds a batch and class for the calls, seconds a batch,
# seconds a multiplication in float64, and seconds a value that goes into a regression. The first layer's time shows how
# much faster or slower a machine is.
_CALL, _BATCH, _MULTIPLICATION, _VALUE = 3e-3, 5e-3, 4e-11, 1.3e-8
# How far the first layer, which holds the first tracing of the model, may change the guess.
_LIKELY = (0.5, 4.0)
HOUR = 3600.0


class Plan(NamedTuple):
    """What a fit is to learn.

    Attributes:
        network: The inverse network.
        classes: How many classes.
        passes: How often the data are passed over, without counting samples.
        epochs: Of training, or None where everything is solved in closed form.
        rows: Most rows of a regression, or None.
    """

    network: InverseNetwork
    classes: int
    passes: int
    epochs: int | None
    rows: int | None

    @property
    def size(self) -> str:
        """Classes and layers, in words."""
        layers = len(self.network.learned)
        return f"{_counted(self.classes, 'class', 'classes')} x {_counted(layers, 'layer', 'layers')}"

    def guess(self, first: float, samples: int, batches: int) -> float:
        """Seconds of the whole fit.

        Args:
            first: Seconds of the first learned layer.
            samples, batches: Of a pass.
        """
        seconds = [self._seconds(node, samples, batches) for node in self.network.learned]
        network = 0.1 * _MULTIPLICATION * self._work(None, None) * samples
        every = self.passes * (network + _BATCH * batches)
        # The first layer's time holds a pass.
        expected = seconds[0] + every / max(self.passes, 1)
        least, most = _LIKELY
        return first + (sum(seconds) + every - expected) * min(max(first / expected, least), most)

    def _seconds(self, node: Node, samples: int, batches: int) -> float:
        """Of a learned node, without the pass over the data."""
        inverse = self.network.regression(node)
        groups, features, targets = inverse.regression().sizes
        rows = samples * inverse.positions
        trained = self.epochs is not None and inverse.trainable
        share = 1.0
        if inverse.sampled and self.rows is not None and not trained:
            share = min(1.0, self.rows / rows)
            rows = min(rows, self.rows)
        if trained:
            work = 6.0 * (self.epochs or 1) * rows * features * targets * groups
        else:
            work = groups * (rows * (features + targets) * features + features * features * (features / 3 + targets))
        above = self._work(self._above(node), node) * samples * share
        values = rows * (features + targets) * groups
        each_class = _CALL * max(1.0, batches * share) + _MULTIPLICATION * (work + above) + _VALUE * values
        return self.classes * each_class

    def _above(self, node: Node) -> Node | None:
        """The learned node before a node, from which the signals come."""
        position = self.network.learned.index(node)
        return self.network.learned[position - 1] if position else None

    def _work(self, first: Node | None, last: Node | None) -> float:
        """Multiplications for one sample of the steps from one node to before another; None for all of them."""
        low = 0 if first is None else self.network.position(first)
        high = len(self.network.nodes) if last is None else self.network.position(last)
        steps = (node.step for node in self.network.nodes[low:high])
        return sum(_multiplications(step) for step in steps if step is not None)


def _multiplications(step: Step) -> float:
    shape = step.output_shape
    if not step.linear:
        return float(math.prod(shape))
    return float(math.prod(step.layer.kernel.shape) * math.prod(shape[:-1]))


def in_words(seconds: float) -> str:
    """A length of time, as roughly as it is known."""
    if seconds < 60:
        return "less than a minute"
    for neuron, size, most in (("minute", 60.0, 90 * 60.0), ("hour", HOUR, 48 * HOUR)):
        if seconds < most:
            return f"about {_counted(max(1, round(seconds / size)), neuron, neuron + 's')}"
    return f"about {round(seconds / (24 * HOUR))} days"


def _counted(count: int, one: str, many: str) -> str:
    return f"{count:,} {one if count == 1 else many}"
