"""How one learned node is fitted for some classes: in closed form, or by training."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from ...data.distribute import Replicas
from ..inverse import LearnedInverse
from ..inverse_graph import Node
from ..layers.dense import DenseInverse
from ..logit_ridge import LogitRidge
from ..moments import Solution
from .results import Results
from .samples import Samples
from .training import Schedule, TrainingBatch, train
from .unit import Unit


class Task(NamedTuple):
    """A learned node to fit.

    Attributes:
        position: Its position among the learned nodes.
        node: The node.
        inverse: Its inverse.
        classes: The classes to fit.
        passing: Classes that have it already, whose signals are carried down
            to it.
        load: Starts a pass over the units of the node's segment; True shows
            its progress.
    """

    position: int
    node: Node
    inverse: LearnedInverse
    classes: list[int]
    passing: list[int]
    load: Callable[[bool], Iterable[list[Unit]]]


class Learner:
    """Fits learned nodes.

    Args:
        samples: The data on their way down.
        results: What is fitted already; what is found is added.
        replicas: The devices and hosts that take part.
    """

    def __init__(self, samples: Samples, results: Results, replicas: Replicas):
        self.samples, self.results, self.replicas = samples, results, replicas
        self.network, self.members = samples.network, samples.members

    def solve(self, task: Task, ridge: float) -> None:
        """Fit a node in closed form.

        Raises:
            ValueError: If a class has no samples, or the features do not
                determine the weights.
        """
        node, classes = task.node, task.classes
        # The head of the model reads one number, the logit, and all classes' heads have the same targets.
        head = isinstance(task.inverse, DenseInverse) and node is self.network.nodes[0] and self.network.head.narrow
        if head and self.members.all and len(classes) > 1:
            solutions: Iterable[Solution] = self._logits_solved(task, ridge)
        else:
            solutions = self._solved(task, ridge)
        for c, found in zip(classes, solutions, strict=True):
            weights = task.inverse.assemble(found.kernel, found.bias)
            self.results.keep(node, c, weights, found.mse, found.variance, found.rows)

    def _solved(self, task: Task, ridge: float) -> Iterator[Solution]:
        position, inverse = task.position, task.inverse
        sums = {c: inverse.regression() for c in task.classes}
        draws = {c: self.samples.draw(position, c) for c in task.classes}
        take = max((draw.take for draw in draws.values()), default=0)
        rate = max((draw.rate for draw in draws.values()), default=0.0)
        for units in task.load(True):
            self._carry(task, units)
            for unit in units:
                self.samples.trim(unit, position)
            used = [unit.samples[: int(np.searchsorted(unit.draws, rate))] for unit in units]
            drawn = [self.samples.positions(position, samples, inverse, take) for samples in used]
            for c in task.classes:
                part_of = functools.partial(
                    self.samples.part, neuron=c, position=position, weights=self.results.weights[c]
                )
                parts = self.replicas.each(part_of, [(unit,) for unit in units])
                for part, positions in zip(parts, drawn, strict=True):
                    if part is not None:
                        at = positions
                        if at is not None and (len(part.rows), draws[c].take) != at.shape:
                            at = at[part.rows, : draws[c].take]
                        inverse.add_rows(sums[c], part.signal, part.target, at, part.record)
        self._exchange(task, list(sums.values()), [f"class {c}" for c in task.classes])
        for c in task.classes:
            if not self.members.count(c):
                raise self.members.none(c)
            yield self._regressed(task, sums.pop(c), ridge, f"class {c}")

    def _logits_solved(self, task: Task, ridge: float) -> list[Solution]:
        sums = LogitRidge(len(task.classes), task.inverse.weight_shapes[0][1])
        for units in task.load(True):
            # The signals of these classes begin here, for the layers below.
            below = task.position + 1 < len(self.network.learned)
            self._carry(task._replace(passing=task.passing + (task.classes if below else [])), units)
            for unit in units:
                logits = tf.gather(tf.cast(unit.logits, tf.float32), task.classes, axis=1)
                sums.update(logits, tf.reshape(unit.targets(task.node), (len(unit.held), -1)))
        self._exchange(task, [sums], ["all classes"])
        return self._regressed(task, sums, ridge, "one of the classes")

    def _regressed(self, task: Task, sums: Any, ridge: float, of: str) -> Any:
        """The solution of a regression, or several."""
        try:
            return sums.solve(ridge, np.float32)
        except ValueError as problem:
            raise ValueError(f"{problem}; this was in layer {task.node.name!r}, {of}") from None

    def _exchange(self, task: Task, sums: list, names: list[str]) -> None:
        """Add up with the other hosts."""
        if self.replicas.hosts > 1:
            for each, name in zip(sums, names, strict=True):
                each.exchange(functools.partial(self.replicas.total, what=f"layer {task.node.name}, {name}"))

    def _carry(self, task: Task, units: list[Unit]) -> None:
        """Carry the signals of classes that are fitted already."""

        def carry(unit: Unit) -> None:
            for c in task.passing:
                self.samples.pass_by(unit, c, task.position, self.results.weights[c])

        self.replicas.each(carry, [(unit,) for unit in units])

    def train(
        self, task: Task, schedule: Schedule, *, memory: int, steps: int | None, log: Callable[[str], None]
    ) -> None:
        """Fit a node by Keras, as :func:`~.training.train` does.

        Raises:
            ValueError: If a class has no samples.
        """

        def each_batch(wanted: list[int], show: bool) -> Iterator[TrainingBatch]:
            for units in task.load(show):
                for unit in units:
                    for c in wanted:
                        part = self.samples.part(unit, c, task.position, self.results.weights[c])
                        if part is None:
                            continue
                        for chosen in unit.batches(part.rows):
                            signal, target = tf.gather(part.signal, chosen), tf.gather(part.target, chosen)
                            yield c, tf.cast(signal, tf.float32), tf.cast(target, tf.float32)

        for units in task.load(True) if task.passing else ():
            self._carry(task, units)
        if not task.classes:
            return
        samples = {c: self.members.count(c) for c in task.classes}
        found = train(task.inverse, samples, each_batch, schedule, memory=memory, steps=steps, log=log)
        for c, trained in found.items():
            if not trained.squares.samples:
                raise self.members.none(c)
            self.results.keep(task.node, c, trained.weights, *trained.squares.error(), trained.squares.rows)
