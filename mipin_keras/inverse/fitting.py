"""Fitting an InverseNetwork from the top down, one pass over the data a learned node."""

from __future__ import annotations

import functools
import json
from collections.abc import Iterator
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf

from ..batches import Batches
from .checkpoint import Checkpoint
from .network import Begun, InverseNetwork, Seen
from .plan import Node
from .replicas import Replicas
from .ridge import Squares
from .rules import LearnedInverse, Weights
from .samples import Batch, Draw, Samples
from .training import train


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
        memory: Bytes that the sums of the classes which go through the data
            together may take, one class always; and as many again what the
            network makes of the data, which is kept where it fits.
        checkpoint: What is learned is written there, and what stands there is
            not learned again.
        replicas: The devices and hosts that take part.

    Raises:
        ValueError: If ``conv_solver="trained"`` is to be shared among replicas.
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
        checkpoint: Checkpoint | None = None,
        replicas: Replicas | None = None,
    ):
        self.network = network
        self.batches = batches
        self.classes = classes
        self.options = options
        self.verbose = verbose
        self.memory = memory
        self.checkpoint = checkpoint
        self.replicas = replicas or Replicas()
        if options.conv_solver == "trained" and (self.replicas.count, self.replicas.hosts) != (1, 1):
            raise ValueError(
                "conv_solver='trained' goes through its batches one after the other, and cannot share them among "
                f"{self.replicas.count * self.replicas.hosts} replicas; fit outside of the strategy's scope, or take "
                "conv_solver='closed_form'"
            )
        self._weights: dict[int, dict[int, Weights]] = {c: {} for c in classes}
        self._lines: dict[tuple[int, int], dict[str, Any]] = {}
        self._counts: np.ndarray | None = None
        self.samples = Samples(
            network, self.passing, batches.samples, self.replicas, len(classes), options.seed, memory
        )

    def run(self) -> dict[int, dict[int, Weights]]:
        """Fit every learned node of every class.

        Returns:
            float32 weights by class and node index, for
            ``InverseNetwork.weights``.

        Raises:
            ValueError: If a class has no samples with ``samples="class"``, or
                the features of a layer do not determine its inverse.
        """
        self._take_up()
        for number, node in enumerate(self.network.learned):
            classes = [c for c in self.classes if node.index not in self._weights[c]]
            if classes:
                self.say(f"layer {node.name} ({number + 1} of {len(self.network.learned)})")
                self._learn(number, node, classes)
            self.samples.done(node)
        return self._weights

    @property
    def report(self) -> list[dict[str, Any]]:
        """One line a layer and class, from the top down."""
        order = {node.index: place for place, node in enumerate(self.network.learned)}
        return [self._lines[key] for key in sorted(self._lines, key=lambda key: (order[key[0]], key[1]))]

    def _take_up(self) -> None:
        """Begin where the checkpoint stands."""
        if self.checkpoint is None:
            return
        pieces = self.checkpoint.load()
        for key, (weights, lines) in pieces.items():
            index = int(key.split()[0])
            for (c, found), line in zip(sorted(weights.items()), lines, strict=True):
                self._weights[c][index] = tuple(tf.constant(w, tf.float32) for w in found)
                self._lines[index, c] = line
        state = self.checkpoint.state()
        # All have read before one writes.
        self.replicas.agree("what was learned before", f"{sorted(pieces)} {json.dumps(state, sort_keys=True)}")
        self.batches.samples = state.get("samples", self.batches.samples)
        self._counts = None if state.get("counts") is None else np.asarray(state["counts"], int)
        if pieces:
            self.say(f"going on from {self.checkpoint.directory}: {len(pieces)} pieces were learned before")

    def _learn(self, number: int, node: Node, classes: list[int]) -> None:
        inverse = self.network.regression(node)
        trained = inverse.trainable and self.options.conv_solver == "trained"
        together = len(classes) if trained else max(1, self.memory // inverse.regression().nbytes)
        for i in range(0, len(classes), together):
            group = classes[i : i + together]
            if trained:
                train(self, node, inverse, group)
            else:
                self._solve(number, node, inverse, group)
            if self.checkpoint is not None:
                counts = None if self._counts is None else self._counts.tolist()
                self.checkpoint.note({"samples": self.batches.samples, "counts": counts})
                weights = {c: tuple(w.numpy() for w in self._weights[c][node.index]) for c in group}
                lines = [self._lines[node.index, c] for c in group]
                self.checkpoint.write(f"{node.index} {node.name} {group[0]}-{group[-1]}", weights, lines)
        lines = [self._lines[node.index, c] for c in classes]
        if self.verbose == 1:
            mean, part = (float(np.mean([line[key] for line in lines])) for key in ("mse", "relative"))
            self.say(f"  reconstruction error {mean:.4g}, {part:.1%} of the variance (mean of {len(lines)} classes)")

    def _solve(self, number: int, node: Node, inverse: LearnedInverse, classes: list[int]) -> None:
        limit = self.options.rows if inverse.sampled else None
        draws = {c: Draw.of(inverse, limit, 0 if limit is None else self.count(c)) for c in classes}
        sums = {c: inverse.regression() for c in classes}
        counts = np.zeros(self.network.graph.units, int)
        rate = max(draw.rate for draw in draws.values())

        def design(batch: Batch, c: int) -> tuple[np.ndarray, np.ndarray] | None:
            chosen = np.flatnonzero(self.members(batch.seen, c) & (batch.luck < draws[c].rate))
            if not len(chosen):
                return None
            part = batch.at(node, c, self._weights[c], chosen)
            positions = self.samples.positions(number, part.samples, inverse, draws[c].take)
            return inverse.design(part.signal, part.target, positions, part.record)

        for parts in self.samples.batches(number, node, rate):
            counts += sum(self._of_each_class(batch.seen) for batch in parts)
            for c in classes:
                for rows in self.replicas.each(design, [(batch, c) for batch in parts]):
                    if rows is not None:
                        sums[c].update(*rows)
        if rate >= 1.0:  # every sample came by
            self._counts = self._of_all_hosts(counts)
        if self.replicas.hosts > 1:
            for c in classes:
                sums[c].exchange(functools.partial(self.replicas.total, what=f"layer {node.name}, class {c}"))
        for c in classes:
            if not self.count(c):
                raise ValueError(self.empty(c))
            solution = sums.pop(c).solve(self.options.ridge, np.float32)
            weights = inverse.assemble(solution.kernel, solution.bias)
            self.keep(node, c, weights, solution.mse, solution.variance, solution.rows)

    # The data

    def passing(self) -> Iterator[np.ndarray]:
        """One pass over the data, with a bar."""
        shown = self.verbose == 1 and self.replicas.chief
        bar = keras.utils.Progbar(self.batches.steps, unit_name="batch") if shown else None
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
            for i, x in enumerate(self.passing()):
                if self.replicas.mine(i):
                    counts += sum(self.replicas.run(lambda x: self._of_each_class(self.network.look(x, top)), x))
            self._counts = self._of_all_hosts(counts)
        return int(self._counts[unit])

    def _of_all_hosts(self, counts: np.ndarray) -> np.ndarray:
        return self.replicas.total([counts], "the samples of each class")[0].astype(int)

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

    def keep(self, node: Node, unit: int, weights: Any, mse: float, variance: float, rows: int) -> None:
        """Note a class' fitted weights for a node, and what they reconstruct."""
        self._weights[unit][node.index] = tuple(tf.constant(w, tf.float32) for w in weights)
        self._lines[node.index, unit] = line = error_line(node, unit, self.count(unit), rows, mse, variance)
        if self.verbose == 2:
            self.say(f"  class {unit}: error {mse:.4g}, {line['relative']:.1%} of the variance")

    def say(self, text: str) -> None:
        if self.verbose and self.replicas.chief:
            print(f"mipin: {text}", flush=True)


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
            part, begun = seen.rows(chosen), Begun()
            for node in nodes:
                inverse = network.regression(node)
                signal = network.descend(part, c, node, network.weights[c], begun, tf.float32)
                guess = inverse.source(signal, part.records.get(node.index, ()), network.weights[c][node.index])
                target = part.targets[node.index]
                totals[node.index, c].update(target.numpy(), inverse.reconstruction(guess).numpy())
    return [
        error_line(node, c, totals[node.index, c].samples, totals[node.index, c].rows, *totals[node.index, c].error())
        for node in nodes
        for c in classes
    ]
