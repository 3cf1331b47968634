"""Fitting an InverseNetwork from the top down, one pass over the data a learned step."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf

from ..batches import Batches
from ..graph import Step
from .network import InverseNetwork, Seen
from .ridge import Squares
from .rules import LearnedInverse, Weights
from .training import train

# How many positions of one sample a sampled regression takes at least: enough
# that a forward pass pays, few enough that many samples have their say.
POSITIONS = 256
# Sums of as many classes go through the data together as fit in here.
SUMS_BYTES = 2 << 30


class Options(NamedTuple):
    """How to fit: the options of :class:`mipin_keras.inverse.MIPIN` of the same names."""

    samples: str = "all"
    ridge: float = 1e-3
    conv_solver: str = "closed_form"
    epochs: int = 20
    rows: int | None = 1 << 17
    seed: int = 0


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
    """

    def __init__(
        self, network: InverseNetwork, batches: Batches, classes: list[int], options: Options, verbose: int = 1
    ):
        self.network = network
        self.batches = batches
        self.classes = classes
        self.options = options
        self.verbose = verbose
        self.report: list[dict[str, Any]] = []
        self._weights: dict[int, dict[int, Weights]] = {c: {} for c in classes}
        self._counts: np.ndarray | None = None

    def run(self) -> dict[int, dict[int, Weights]]:
        """Fit every learned step of every class.

        Returns:
            float32 weights by class and step index, for
            ``InverseNetwork.weights``.

        Raises:
            ValueError: If a class has no samples with ``samples="class"``, or
                the features of a layer do not determine its inverse.
        """
        for number, step in enumerate(self.network.learned):
            inverse = self.network.regression(step)
            self.say(f"layer {step.name} ({number + 1} of {len(self.network.learned)})")
            if inverse.sampled and self.options.conv_solver == "trained":
                train(self, step, inverse)
                continue
            size = inverse.regression().nbytes
            together = max(1, SUMS_BYTES // size)
            for i in range(0, len(self.classes), together):
                self._solve(number, step, inverse, self.classes[i : i + together])
        return {
            c: {index: tuple(tf.cast(w, tf.float32) for w in ws) for index, ws in weights.items()}
            for c, weights in self._weights.items()
        }

    def _solve(self, number: int, step: Step, inverse: LearnedInverse, classes: list[int]) -> None:
        sums = {c: inverse.regression() for c in classes}
        for seen, rows, positions in self._rows(number, step, inverse, classes):
            for c in classes:
                chosen = rows[c]
                if len(chosen):
                    part = seen.rows(chosen)
                    signal = self.network.descend(part, c, step, self._weights[c])
                    at = None if positions is None else positions[chosen]
                    sums[c].update(*inverse.design(signal, part.targets[step.index], at))
        for c in classes:
            if not self.count(c):
                raise ValueError(self.empty(c))
            weights = inverse.solved(sums[c].solve(self.options.ridge))
            self.keep(step, c, weights, *sums[c].error(*inverse.disassemble(weights)), sums[c].rows)

    def _rows(self, number: int, step: Step, inverse: LearnedInverse, classes: list[int]) -> Iterator[tuple]:
        """Batches as looked at, the rows of each class in them, and the positions to take."""
        rates, take = dict.fromkeys(classes, 1.0), inverse.positions
        limit = self.options.rows
        if inverse.sampled and limit is not None:
            samples = {c: max(self.count(c), 1) for c in classes}
            take = min(take, limit, max(POSITIONS, -(-limit // max(samples.values()))))
            rates = {c: min(1.0, limit / take / count) for c, count in samples.items()}
        seeds = np.random.SeedSequence([self.options.seed, number]).spawn(2)
        choose, place = (np.random.default_rng(seed) for seed in seeds)
        counts = np.zeros(self.network.graph.units, int)
        for x, luck in self._lucky(max(rates.values()), choose):
            seen = self.network.look(x, step, (step,))
            counts += self._of_each_class(seen)
            positions = None
            if take < inverse.positions:
                order = place.random((len(x), inverse.positions))
                positions = np.argpartition(order, take - 1, axis=1)[:, :take]
            rows = {c: np.flatnonzero(self.members(seen, c) & (luck < rates[c])) for c in classes}
            yield seen, rows, positions
        if max(rates.values()) >= 1.0:  # every sample came by
            self._counts = counts

    def _lucky(self, rate: float, choose: np.random.Generator) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """A random share of the samples in batches of the usual size, and each one's number in [0, 1)."""
        kept: list[tuple[np.ndarray, np.ndarray]] = []
        for x in self.passing():
            luck = choose.random(len(x))
            keep = luck < rate
            kept.append((x[keep], luck[keep]))
            if sum(len(part) for part, _ in kept) >= len(x):
                yield np.concatenate([a for a, _ in kept]), np.concatenate([b for _, b in kept])
                kept = []
        if sum(len(part) for part, _ in kept):
            yield np.concatenate([a for a, _ in kept]), np.concatenate([b for _, b in kept])

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
            top = self.network.steps[-1]
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

    def weights(self, unit: int) -> dict[int, Weights]:
        """What is fitted of class ``unit`` so far."""
        return self._weights[unit]

    def keep(self, step: Step, unit: int, weights: Any, mse: float, variance: float, rows: int) -> None:
        """Note a class' fitted weights for a step, and what they reconstruct.

        The walk of a fit runs in float64 on the float32 weights that are kept,
        so that rounding makes no directions of its own for the next
        regression to divide by.
        """
        self._weights[unit][step.index] = tuple(tf.cast(w, tf.float64) for w in weights)
        line = error_line(step, unit, self.count(unit), rows, mse, variance)
        self.report.append(line)
        if self.verbose == 2:
            self.say(f"  class {unit}: error {mse:.4g}, {line['relative']:.1%} of the variance")
        elif self.verbose == 1 and unit == self.classes[-1]:
            lines = [entry for entry in self.report if entry["layer"] == step.name]
            mean, part = (float(np.mean([entry[key] for entry in lines])) for key in ("mse", "relative"))
            self.say(f"  reconstruction error {mean:.4g}, {part:.1%} of the variance (mean of {len(lines)} classes)")

    def say(self, text: str) -> None:
        if self.verbose:
            print(f"mipin: {text}", flush=True)


def error_line(step: Step, unit: int, samples: int, rows: int, mse: float, variance: float) -> dict[str, Any]:
    """One entry of a fit report."""
    return {
        "class": unit,
        "layer": step.name,
        "type": type(step.layer).__name__,
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
    steps = tuple(network.learned)
    fitting = Fitting(network, batches, classes, Options(samples=samples), verbose=0)
    totals = {(s.index, c): Squares() for s in steps for c in classes}
    for x in fitting.passing():
        seen = network.look(x, None, steps)
        for c in classes:
            chosen = np.flatnonzero(fitting.members(seen, c))
            if not len(chosen):
                continue
            part = seen.rows(chosen)
            for step in steps:
                signal = network.descend(part, c, step, network.weights[c])
                guess = network.inverses[step.index].source(
                    signal, part.records[step.index], network.weights[c].get(step.index, ())
                )
                totals[step.index, c].update(part.targets[step.index].numpy(), guess.numpy())
    return [
        error_line(step, c, totals[step.index, c].samples, totals[step.index, c].rows, *totals[step.index, c].error())
        for step in steps
        for c in classes
    ]
