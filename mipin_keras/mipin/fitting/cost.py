"""The cost of a fit: how much there is to learn, and a guess of its time from its first layer."""

from __future__ import annotations

import math
from typing import NamedTuple

from ...graph.model_graph import Step
from ..inverse_graph import Node
from ..network import InverseNetwork
from .training import bytes_a_sample, groups

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
        memory: Bytes that the sums of classes fitted together may take.
        epochs: Of training, or None where everything is solved in closed form.
        rows: Most rows of a regression, or None.
        keeps: Whether what the network makes of the data is kept.
        samples: How many there are; None where that is not known yet.
    """

    network: InverseNetwork
    classes: int
    memory: int
    epochs: int | None
    rows: int | None
    keeps: bool
    samples: int | None = None

    @property
    def size(self) -> str:
        """Classes and layers, in words."""
        layers = len(self.network.learned)
        return f"{_counted(self.classes, 'class', 'classes')} x {_counted(layers, 'layer', 'layers')}"

    @property
    def passes(self) -> int:
        """How often the data are passed over, without counting the samples of each class."""
        if self.keeps and self.epochs is None:
            return 1
        return sum(self._passes(node) for node in self.network.learned)

    def _passes(self, node: Node) -> int:
        inverse = self.network.regression(node)
        if self.epochs is not None and inverse.trainable:
            # One for all classes whose signals are kept together; of a class that does not fit, one in each epoch and
            # one for its error. Of samples="class" a class has fewer.
            size = (self.samples or 0) * bytes_a_sample(inverse)
            together = len(list(groups(dict.fromkeys(range(self.classes), size), self.memory)))
            return together if size <= self.memory else self.classes * (self.epochs + 1)
        return math.ceil(self.classes / max(1, self.memory // inverse.regression().nbytes))

    def guess(self, first: float, samples: int, batches: int) -> float:
        """Seconds of the whole fit.

        Args:
            first: Seconds of the first learned layer.
            samples, batches: Of a pass.
        """
        seconds = [self._seconds(node, samples, batches) for node in self.network.learned]
        least, most = _LIKELY
        return first + sum(seconds[1:]) * min(max(first / seconds[0], least), most)

    def _seconds(self, node: Node, samples: int, batches: int) -> float:
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
        above = self._work_above(node) * samples * share
        values = rows * (features + targets) * groups
        each_class = _CALL * max(1.0, batches * share) + _MULTIPLICATION * (work + above) + _VALUE * values
        forward = 0.0 if self.keeps else self._work_above(None) * samples * share
        passes = self._passes(node)
        return self.classes * each_class + passes * (_BATCH * batches + 0.1 * _MULTIPLICATION * forward)

    def _work_above(self, node: Node | None) -> float:
        """Multiplications for one sample of all steps above a node, or of all steps."""
        work = 0.0
        for other in self.network.nodes:
            if other is node:
                break
            work += 0.0 if other.step is None else _multiplications(other.step)
        return work


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
