"""Fitting an InverseNetwork from the top down, one pass over the data a learned node."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf

from ..batches import Batches
from .network import InverseNetwork, Seen
from .plan import Node
from .ridge import Squares
from .rules import LearnedInverse, Weights
from .training import train

# How many positions of one sample a sampled regression takes at least: enough
# that a forward pass pays, few enough that many samples have their say.
POSITIONS = 256


class Options(NamedTuple):
    """How to fit: the options of :class:`mipin_keras.inverse.MIPIN` of the same names."""

    samples: str = "all"
    ridge: float = 1e-3
    conv_solver: str = "closed_form"
    epochs: int = 20
    rows: int | None = 1 << 17
    seed: int = 0


class Draw(NamedTuple):
    """Which rows a class' regression takes.

    Attributes:
        rate: Share of the samples.
        take: Positions of each.
    """

    rate: float
    take: int


class Fitting:
    """One fit: classes, data and options, and what is known so far.

    Nothing is written to the network before :meth:`run` returns.

    Args:
        network: Whose weights to find.
        batches: The data, passed over again and again.
        classes: Output neurons.
        options: See :class:`Options`.
        verbose: 0 silent, 1 a bar a pass and a line a layer, 2 a line a layer
            and class.
        memory: Bytes that the sums of the classes which go through the data
            together may take; one class always goes.
    """

    def __init__(
        self,
        network: InverseNetwork,
        batches: Batches,
        classes: list[int],
        options: Options,
        verbose: int = 1,
        *,
        memory: int = 2 << 30,
    ):
        self.network = network
        self.batches = batches
        self.classes = classes
        self.options = options
        self.verbose = verbose
        self.memory = memory
        self.report: list[dict[str, Any]] = []
        self._weights: dict[int, dict[int, Weights]] = {c: {} for c in classes}
        self._counts: np.ndarray | None = None

    def run(self) -> dict[int, dict[int, Weights]]:
        """Fit every learned node of every class.

        Returns:
            float32 weights by class and node index, for
            ``InverseNetwork.weights``.

        Raises:
            ValueError: If a class has no samples with ``samples="class"``, or
                the features of a layer do not determine its inverse.
        """
        for number, node in enumerate(self.network.learned):
            inverse = self.network.regression(node)
            self.say(f"layer {node.name} ({number + 1} of {len(self.network.learned)})")
            if inverse.trainable and self.options.conv_solver == "trained":
                train(self, node, inverse)
                continue
            together = max(1, self.memory // inverse.regression().nbytes)
            for i in range(0, len(self.classes), together):
                self._solve(number, node, inverse, self.classes[i : i + together])
        return self._weights

    def _solve(self, number: int, node: Node, inverse: LearnedInverse, classes: list[int]) -> None:
        draws = {c: self._draw(inverse, c) for c in classes}
        sums = {c: inverse.regression() for c in classes}
        above = {c: self.above(c) for c in classes}
        counts = np.zeros(self.network.graph.units, int)
        rate = max(draw.rate for draw in draws.values())
        for x, luck, samples in self._lucky(rate, number):
            seen = self.network.look(x, node, (node,))
            counts += self._of_each_class(seen)
            for c in classes:
                chosen = np.flatnonzero(self.members(seen, c) & (luck < draws[c].rate))
                if len(chosen):
                    part = seen.rows(chosen)
                    signal = self.network.descend(part, c, node, above[c])
                    at = self._positions(number, samples[chosen], inverse.positions, draws[c].take)
                    target, record = part.targets[node.index], part.records.get(node.index, ())
                    sums[c].update(*inverse.design(signal, target, at, record))
        if rate >= 1.0:  # every sample came by
            self._counts = counts
        del above
        for c in classes:
            if not self.count(c):
                raise ValueError(self.empty(c))
            solution = sums.pop(c).solve(self.options.ridge, np.float32)
            weights = inverse.assemble(solution.kernel, solution.bias)
            self.keep(node, c, weights, solution.mse, solution.variance, solution.rows)

    # Which rows

    def _draw(self, inverse: LearnedInverse, unit: int) -> Draw:
        limit = self.options.rows
        if not inverse.sampled or limit is None:
            return Draw(1.0, inverse.positions)
        samples = max(self.count(unit), 1)
        take = min(inverse.positions, limit, max(POSITIONS, -(-limit // samples)))
        return Draw(min(1.0, limit / take / samples), take)

    def _positions(self, number: int, samples: np.ndarray, positions: int, take: int) -> np.ndarray | None:
        """The positions to take of each sample, ``(n, take)``; a sample's are the same in every batch and fit."""
        if take >= positions:
            return None
        drawn = np.empty((len(samples), take), np.int64)
        for row, sample in zip(drawn, samples.tolist(), strict=True):
            rng = np.random.Generator(np.random.Philox(key=[self.options.seed, number], counter=[0, 0, 0, sample]))
            row[:] = rng.choice(positions, take, replace=False, shuffle=False)
        return drawn

    def _lucky(self, rate: float, number: int) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
        """A random share of the samples in batches of the usual size, each one's luck in [0, 1), and its number."""
        choose = np.random.default_rng([self.options.seed, number])
        kept: list[tuple[np.ndarray, ...]] = []
        first = 0
        for x in self.passing():
            luck = choose.random(len(x))
            keep = luck < rate
            part = (x, luck, np.arange(first, first + len(x)))
            kept.append(part if keep.all() else tuple(array[keep] for array in part))
            first += len(x)
            if sum(len(part[0]) for part in kept) >= len(x):
                yield _joined(kept)
                kept = []
        if sum(len(part[0]) for part in kept):
            yield _joined(kept)

    # The data

    def passing(self) -> Iterator[np.ndarray]:
        """One pass over the data, with a bar."""
        bar = keras.utils.Progbar(self.batches.steps, unit_name="batch") if self.verbose == 1 else None
        for i, x in enumerate(self.batches):
            yield x
            if bar is not None:  # where the number of batches is not known before, the last one ends the bar
                bar.update(i + 1)
        if bar is not None and bar.target is None:
            bar.update(i + 1, finalize=True)

    def members(self, seen: Seen, unit: int) -> np.ndarray:
        """Which samples of a batch fit class ``unit``: all, or those that the model takes for it."""
        if self.options.samples == "all":
            return np.ones(seen.logits.shape[0], bool)
        return np.argmax(seen.logits.numpy(), axis=1) == unit

    def count(self, unit: int) -> int:
        """How many samples fit class ``unit``; a pass over the data finds out once."""
        if self.options.samples == "all":
            return self.batches.count()
        if self._counts is None:
            self.say("counting the samples of each class")
            counts = np.zeros(self.network.graph.units, int)
            top = self.network.nodes[0]
            for x in self.passing():
                counts += self._of_each_class(self.network.look(x, top))
            self._counts = counts
        return int(self._counts[unit])

    def _of_each_class(self, seen: Seen) -> np.ndarray:
        return np.bincount(np.argmax(seen.logits.numpy(), axis=1), minlength=self.network.graph.units)

    def empty(self, unit: int) -> str:
        """The message for a class without samples."""
        return (
            f"expected samples of class {unit} to fit its inverse from, received none among "
            f"{self.batches.count()} that the model takes for it; leave it out of classes=, or use samples='all'"
        )

    # What is found

    def fitted(self, unit: int) -> dict[int, Weights]:
        """What is fitted of class ``unit`` so far, float32."""
        return self._weights[unit]

    def above(self, unit: int) -> dict[int, Weights]:
        """What is fitted of class ``unit`` so far, in float64.

        The walk of a fit runs in float64 on the float32 weights that are kept,
        so that rounding makes no directions of its own for the next
        regression to divide by.
        """
        return tf.nest.map_structure(lambda w: tf.cast(w, tf.float64), self._weights[unit])

    def keep(self, node: Node, unit: int, weights: Any, mse: float, variance: float, rows: int) -> None:
        """Note a class' fitted weights for a node, and what they reconstruct."""
        self._weights[unit][node.index] = tuple(tf.constant(w, tf.float32) for w in weights)
        line = error_line(node, unit, self.count(unit), rows, mse, variance)
        self.report.append(line)
        if self.verbose == 2:
            self.say(f"  class {unit}: error {mse:.4g}, {line['relative']:.1%} of the variance")
        elif self.verbose == 1 and unit == self.classes[-1]:
            lines = [entry for entry in self.report if entry["layer"] == node.name]
            mean, part = (float(np.mean([entry[key] for entry in lines])) for key in ("mse", "relative"))
            self.say(f"  reconstruction error {mean:.4g}, {part:.1%} of the variance (mean of {len(lines)} classes)")

    def say(self, text: str) -> None:
        if self.verbose:
            print(f"mipin: {text}", flush=True)


def _joined(parts: list[tuple[np.ndarray, ...]]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    if len(parts) == 1:
        x, luck, samples = parts[0]
    else:
        x, luck, samples = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
    return x, luck, samples


def error_line(node: Node, unit: int, samples: int, rows: int, mse: float, variance: float) -> dict[str, Any]:
    """One entry of a fit report."""
    return {
        "class": unit,
        "layer": node.name,
        "type": node.type,
        "samples": samples,
        "rows": rows,
        "mse": mse,
        "variance": variance,
        # A constant input is reconstructed by the bias alone.
        "relative": mse / variance if variance > 0 else 0.0,
    }


def measure(network: InverseNetwork, batches: Batches, classes: list[int], samples: str) -> list[dict[str, Any]]:
    """The reconstruction errors of a fitted network on any data, every position counted.

    Returns:
        Entries as in a fit report, by layer from the top down, then by class.
    """
    nodes = tuple(network.learned)
    fitting = Fitting(network, batches, classes, Options(samples=samples), verbose=0)
    totals = {(node.index, c): Squares() for node in nodes for c in classes}
    for x in fitting.passing():
        seen = network.look(x, None, nodes)
        for c in classes:
            chosen = np.flatnonzero(fitting.members(seen, c))
            if not len(chosen):
                continue
            part = seen.rows(chosen)
            for node in nodes:
                inverse = network.regression(node)
                signal = network.descend(part, c, node, network.weights[c])
                guess = inverse.source(signal, part.records.get(node.index, ()), network.weights[c][node.index])
                target = part.targets[node.index]
                totals[node.index, c].update(target.numpy(), inverse.reconstruction(guess).numpy())
    return [
        error_line(node, c, totals[node.index, c].samples, totals[node.index, c].rows, *totals[node.index, c].error())
        for node in nodes
        for c in classes
    ]
