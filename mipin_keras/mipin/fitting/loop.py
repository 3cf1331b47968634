"""The loop of a fit: from the logit down, one learned node after the other."""

from __future__ import annotations

import functools
import json
import time
import warnings
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf

from ...data.batches import Batches
from ...data.distribute import Replicas
from ...data.progress import Progress
from ..inverse import LearnedInverse, Weights
from ..inverse_graph import Node
from ..network import InverseNetwork
from . import cost
from .checkpoint import Checkpoint
from .members import Members
from .samples import Batch, Draw, Samples
from .training import Schedule, TrainingBatch, train


class Options(NamedTuple):
    """How to fit: the options of :class:`mipin_keras.mipin.MIPIN` of the same names."""

    samples: str = "all"
    ridge: float = 1e-3
    conv_solver: str = "closed_form"
    epochs: int = 20
    rows: int | None = 1 << 17
    seed: int = 0


class Fitting:
    """One fit of an inverse network.

    The network itself is not changed: :meth:`run` returns the weights.

    Args:
        network: The inverse network to find weights for.
        batches: The data; every learned node may take a pass over them.
        classes: The output neurons to fit.
        options: See :class:`Options`.
        verbose: 0 silent, 1 a bar for each pass and a line for each layer, 2 a
            line for each layer and class.
        memory: Bytes that the sums of the classes which share a pass may take
            (one class always does), and as many again for forward passes that
            are kept.
        checkpoint: Where fitted nodes are written, and read back from.
        replicas: The devices and hosts that take part.
        callbacks: For the trainings of ``conv_solver="trained"``.

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
        callbacks: Sequence[keras.callbacks.Callback] = (),
    ):
        self.network = network
        self.batches = batches
        self.classes = classes
        self.options = options
        self.verbose = verbose
        self.memory = memory
        self.checkpoint = checkpoint
        self.replicas = replicas or Replicas()
        self.callbacks = callbacks
        if options.conv_solver == "trained" and (self.replicas.count, self.replicas.hosts) != (1, 1):
            raise ValueError(
                "conv_solver='trained' expected one device, as it goes through its batches one after the other, "
                f"received {self.replicas.count * self.replicas.hosts} replicas; fit outside of the strategy's scope, "
                "or take conv_solver='closed_form'"
            )
        self._weights: dict[int, dict[int, Weights]] = {c: {} for c in classes}
        self._lines: dict[tuple[int, int], dict[str, Any]] = {}
        self.members = Members(network, batches, options.samples, self.replicas, self.passing, self.log)
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
        plan = self._plan()
        if any(len(self._weights[c]) < len(self.network.learned) for c in self.classes):
            times = "once, as the network's results are kept" if plan.keeps else f"about {plan.passes:,} times"
            self.log(f"{plan.size} to learn, passing over the data {times}")
        for position, node in enumerate(self.network.learned):
            classes = [c for c in self.classes if node.index not in self._weights[c]]
            if classes:
                self.log(f"layer {node.name} ({position + 1} of {len(self.network.learned)})")
                start = time.monotonic()
                self._learn(position, node, classes)
                if position == 0 and len(classes) == len(self.classes):
                    self._log_how_long(plan, time.monotonic() - start)
            self.samples.done(node)
        self._warn_of_little()
        return self._weights

    def _plan(self) -> cost.Plan:
        options = self.options
        epochs = options.epochs if options.conv_solver == "trained" else None
        keeps, samples = self.samples.keeps, self.batches.samples
        return cost.Plan(self.network, len(self.classes), self.memory, epochs, options.rows, keeps, samples)

    def _log_how_long(self, plan: cost.Plan, first: float) -> None:
        """Guess from the first layer's time how long the fit takes; warn if it is more than an hour."""
        seconds = plan.guess(first, self.batches.count(), self.batches.steps or 1)
        text = f"{plan.size}, {cost.in_words(seconds)}"
        if seconds > cost.HOUR and self.replicas.chief:
            advice = "name classes=, or stop at a feature map with input_layer="
            warnings.warn(f"{text}; {advice}", UserWarning, stacklevel=4)
        else:
            self.log(text)

    def _warn_of_little(self) -> None:
        if self.replicas.chief:
            self.batches.warn_of_little()
            self.members.warn_of_few(self.classes, stacklevel=4)

    @property
    def report(self) -> list[dict[str, Any]]:
        """One entry for each layer and class, from the logit down."""
        order = {node.index: position for position, node in enumerate(self.network.learned)}
        return [self._lines[key] for key in sorted(self._lines, key=lambda key: (order[key[0]], key[1]))]

    def _take_up(self) -> None:
        """Take over what the checkpoint holds."""
        if self.checkpoint is None:
            return
        pieces = self.checkpoint.load()
        nodes = {node.index: node for node in self.network.learned}
        for key, (weights, lines) in pieces.items():
            node = nodes.get(int(key.split()[0]))
            shapes = None if node is None else self.network.regression(node).weight_shapes
            odd = any(tuple(w.shape for w in found) != shapes for found in weights.values())
            if node is None or odd or len(lines) != len(weights):
                raise ValueError(
                    f"expected layers of this fit in {self.checkpoint.directory}, received {key!r}, which is no layer "
                    "of this fit; delete it"
                )
            for (c, found), line in zip(sorted(weights.items()), lines, strict=True):
                self._weights[c][node.index] = tuple(tf.constant(w, tf.float32) for w in found)
                self._lines[node.index, c] = line | {"layer": node.name}  # a rebuilt model may have other names
        state = self.checkpoint.state()
        # All have read before one writes.
        self.replicas.agree("what was learned before", f"{sorted(pieces)} {json.dumps(state, sort_keys=True)}")
        self.batches.samples = state.get("samples", self.batches.samples)
        self.members.counts = None if state.get("counts") is None else np.asarray(state["counts"], int)
        if not pieces:
            return
        self.log(f"going on from {self.checkpoint.directory}: {len(pieces)} pieces were learned before")
        self._expect(state.get("batches"), self.checkpoint)
        if all(len(weights) == len(nodes) for weights in self._weights.values()):
            self.log("all was learned before; reading the data once to see that they are the same")
            for _ in self.passing():
                pass

    def _expect(self, marks: str | None, checkpoint: Checkpoint) -> None:
        """Compare the passes to come with the batches that the checkpoint was learned from."""
        if marks is not None:
            self.batches.marks = [int(marks[i : i + 8], 16) for i in range(0, len(marks), 8)]
            self.batches.steps = self.batches.steps or len(self.batches.marks)
            self.batches.resumed = True
        elif not checkpoint.old:
            raise ValueError(
                f"expected a checkpoint that says which data it was learned from, received {checkpoint.directory}, "
                "which does not say; delete it"
            )
        elif self.batches.steps != 1 and self.replicas.chief:
            warnings.warn(
                f"{checkpoint.directory} was begun by version 0.1, which noted the first batch of its data only: that "
                "the others are the same is not checked",
                UserWarning,
                stacklevel=5,
            )

    def _learn(self, position: int, node: Node, classes: list[int]) -> None:
        inverse = self.network.regression(node)
        trained = inverse.trainable and self.options.conv_solver == "trained"
        together = len(classes) if trained else max(1, self.memory // inverse.regression().nbytes)
        for i in range(0, len(classes), together):
            group = classes[i : i + together]
            if trained:
                self._train(node, inverse, group)
            else:
                self._solve(position, node, inverse, group)
            if self.checkpoint is not None:
                counts = None if self.members.counts is None else self.members.counts.tolist()
                marks = "".join(f"{mark:08x}" for mark in self.batches.marks)
                self.checkpoint.note({"samples": self.batches.samples, "counts": counts, "batches": marks})
                weights = {c: tuple(w.numpy() for w in self._weights[c][node.index]) for c in group}
                lines = [self._lines[node.index, c] for c in group]
                self.checkpoint.write(f"{node.index} {node.name} {group[0]}-{group[-1]}", weights, lines)
        lines = [self._lines[node.index, c] for c in classes]
        if self.verbose == 1:
            mean, part = (float(np.mean([line[key] for line in lines])) for key in ("mse", "relative"))
            self.log(f"  reconstruction error {mean:.4g}, {part:.1%} of the variance (mean of {len(lines)} classes)")

    def _solve(self, position: int, node: Node, inverse: LearnedInverse, classes: list[int]) -> None:
        limit = self.options.rows if inverse.sampled else None
        draws = {c: Draw.of(inverse, limit, 0 if limit is None else self.members.count(c)) for c in classes}
        sums = {c: inverse.regression() for c in classes}
        counts = self.members.none_of_any_class()
        rate = max(draw.rate for draw in draws.values())

        def design(batch: Batch, c: int) -> tuple[np.ndarray, np.ndarray] | None:
            chosen = np.flatnonzero(self.members.of(batch.forward_pass, c) & (batch.draws < draws[c].rate))
            if not len(chosen):
                return None
            part = batch.at(node, c, self._weights[c], chosen)
            positions = self.samples.positions(position, part.samples, inverse, draws[c].take)
            return inverse.design(part.signal, part.target, positions, part.record)

        for parts in self.samples.batches(position, node, rate):
            counts += sum(self.members.of_each_class(batch.forward_pass) for batch in parts)
            for c in classes:
                for rows in self.replicas.each(design, [(batch, c) for batch in parts]):
                    if rows is not None:
                        sums[c].update(*rows)
        if rate >= 1.0:  # every sample came by
            self.members.note(counts)
        if self.replicas.hosts > 1:
            for c in classes:
                sums[c].exchange(functools.partial(self.replicas.total, what=f"layer {node.name}, class {c}"))
        for c in classes:
            if not self.members.count(c):
                raise self.members.none(c)
            solution = sums.pop(c).solve(self.options.ridge, np.float32)
            weights = inverse.assemble(solution.kernel, solution.bias)
            self.keep(node, c, weights, solution.mse, solution.variance, solution.rows)

    def _train(self, node: Node, inverse: LearnedInverse, classes: list[int]) -> None:
        options = self.options
        samples = {c: self.members.count(c) for c in classes}
        steps = self.batches.steps if self.members.all else None
        # An endless generator gives new samples in each epoch.
        memory = 0 if self.batches.source_type == "generator" else self.memory

        def each_batch(wanted: list[int], show: bool) -> Iterator[TrainingBatch]:
            for x in self.passing(show):
                forward_pass = self.network.forward(x, node, (node,))
                for c in wanted:
                    chosen = np.flatnonzero(self.members.of(forward_pass, c))
                    if len(chosen):
                        part = forward_pass.rows(chosen)
                        signal = self.network.invert_down_to(part, c, node, self._weights[c], dtype=tf.float32)
                        yield c, signal, tf.cast(part.targets[node.index], tf.float32)

        schedule = Schedule(options.epochs, options.seed, self.callbacks, self.verbose)
        found = train(inverse, samples, each_batch, schedule, memory=memory, steps=steps, log=self.log)
        for c, trained in found.items():
            if not trained.squares.samples:
                raise self.members.none(c)
            self.keep(node, c, trained.weights, *trained.squares.error(), trained.squares.rows)

    # The data

    def passing(self, show: bool = True) -> Iterator[np.ndarray]:
        """One pass over the data, with a progress bar if ``show``: arrays ``(n, *input shape)``."""
        progress = Progress(self.batches.steps, 1 if show and self.verbose == 1 and self.replicas.chief else 0)
        for i, x in enumerate(self.batches):
            if self.checkpoint is not None:
                self.checkpoint.touch()
            yield x
            progress.update(i + 1)
        progress.finish()

    # The results

    def keep(self, node: Node, neuron: int, weights: Any, mse: float, variance: float, rows: int) -> None:
        """Keep a class' fitted weights for a node, and the error that they leave."""
        self._weights[neuron][node.index] = tuple(tf.constant(w, tf.float32) for w in weights)
        self._lines[node.index, neuron] = line = error_line(
            node, neuron, self.members.count(neuron), rows, mse, variance
        )
        if self.verbose == 2:
            self.log(f"  class {neuron}: error {mse:.4g}, {line['relative']:.1%} of the variance")

    def log(self, text: str) -> None:
        if self.verbose and self.replicas.chief:
            print(f"mipin: {text}", flush=True)


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
