"""The loop of a fit: from the logit down, one learned node after the other."""

from __future__ import annotations

import functools
import math
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

import keras
import numpy as np
import tensorflow as tf

from ...data.batches import Batches
from ...data.distribute import Replicas
from ...data.progress import Progress
from ..inverse import LearnedInverse, Weights
from ..network import InverseNetwork
from . import cost
from .checkpoint import Checkpoint
from .learning import Learner, Task
from .members import Members
from .results import Results
from .resuming import take_up
from .samples import Draw, Samples
from .segments import Segment
from .training import Schedule, passes_of
from .unit import Unit

# With a smaller ridge the rounding of a float32 signal counts: it would be a direction of its own, which a regression
# divides by. The default of 1e-3 damps it.
WALK_IN_FLOAT64_BELOW = 1e-5


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
        memory: Bytes that the sums of the classes which are fitted together
            may take (one class always does), and as many again for what the
            network makes of the data and the signals that wait.
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
        self.members = Members(network, batches, options.samples, self.replicas, self.passing, self.log)
        self.results = Results(network, self.members, classes, self.log if verbose == 2 else None)
        self._shows = True  # whether a pass shows its progress
        self._counted: np.ndarray = self.members.none_of_any_class()

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
        if self.batches.samples is None:
            self.log("counting the samples")
            self._read()
        options = self.options
        self.samples = Samples(
            self.network, self.passing, self.members, self.classes, self._draw,
            count=self.batches.count(), replicas=self.replicas, seed=options.seed, memory=self.memory,
            dtype=tf.float64 if options.ridge < WALK_IN_FLOAT64_BELOW else tf.float32,
            carried=self.batches.source_type != "generator",
        )  # fmt: skip
        learner, plan = Learner(self.samples, self.results, self.replicas), self._plan()
        count = len(self.network.learned)
        if any(map(self.results.missing, range(count))):
            times = "once" if plan.passes == 1 else f"about {plan.passes:,} times"
            self.log(f"{plan.size} to learn, passing over the data {times}")
        try:
            for segment in self.samples.segments:
                if any(map(self.results.missing, range(segment.first, count))):
                    self._learn_segment(learner, segment, plan)
        finally:
            self.samples.frontier.close()
        self._warn_of_little()
        return self.results.weights

    def _take_up(self) -> None:
        """Take over what the checkpoint holds."""
        if self.checkpoint is None:
            return
        about = self.network, self.results, self.batches, self.members, self.replicas
        if take_up(self.checkpoint, *about, self.log) and not any(
            map(self.results.missing, range(len(self.network.learned)))
        ):
            self.log("all was learned before; reading the data once to see that they are the same")
            self._read()

    def _read(self) -> None:
        for _ in self.passing():
            pass

    def _learn_segment(self, learner: Learner, segment: Segment, plan: cost.Plan) -> None:
        """Fit the nodes of a segment; where all of them are fitted, carry the signals on."""
        start = time.monotonic()
        units: list[list[Unit]] = []
        kept = segment.kept or not any(map(self.results.missing, range(segment.first, segment.last)))
        if kept:
            for each in self.samples.load(segment):
                units.append(each)
                self._count(each)
            self._count(None)
        for position in range(segment.first, segment.last):
            node, classes = self.network.learned[position], self.results.missing(position)
            if classes:
                self.log(f"layer {node.name} ({position + 1} of {len(self.network.learned)})")
            load = (lambda show: units) if kept else functools.partial(self._load, segment)
            self._learn(learner, position, classes, load)
            if position == 0 and len(classes) == len(self.classes):
                self._log_how_long(plan, time.monotonic() - start)
            for unit in (unit for each in units for unit in each):
                unit.done(node)
        for unit in (unit for each in units for unit in each):
            unit.forward_pass = None

    def _load(self, segment: Segment, show: bool) -> Iterator[list[Unit]]:
        """One pass over the data for a segment that keeps nothing."""
        self._shows = show
        try:
            for each in self.samples.load(segment):
                self._count(each)
                yield each
                for unit in each:
                    unit.forward_pass = None
        finally:
            self._shows = True
        self._count(None)

    def _count(self, units: list[Unit] | None) -> None:
        """Count the samples of each class in the first pass, in which all of them come by; None at its end."""
        if self.members.all or self.members.counts is not None:
            return
        if units is None:
            self.members.note(self._counted)
        else:
            self._counted = self._counted + sum(self.members.of_each_class(unit.taken_for) for unit in units)

    def _plan(self) -> cost.Plan:
        options, passes = self.options, 0
        for segment in self.samples.segments:
            node = self.network.learned[segment.first]
            inverse = self.network.regression(node)
            if segment.kept:
                passes += 1
            elif self._trains(inverse):
                samples = {c: self.members.count(c) if self.members.all else 1 for c in self.classes}
                passes += passes_of(inverse, samples, self._training_memory, options.epochs)
            else:
                passes += math.ceil(len(self.classes) / self._together(inverse, len(self.classes)))
        epochs = options.epochs if options.conv_solver == "trained" else None
        return cost.Plan(self.network, len(self.classes), passes, epochs, options.rows)

    @property
    def _training_memory(self) -> int:
        # An endless generator gives new samples in each epoch.
        return 0 if self.batches.source_type == "generator" else self.memory

    def _trains(self, inverse: LearnedInverse) -> bool:
        return inverse.trainable and self.options.conv_solver == "trained"

    def _together(self, inverse: LearnedInverse, classes: int) -> int:
        """How many classes' sums fit into memory."""
        return classes if self._trains(inverse) else max(1, self.memory // inverse.regression().nbytes)

    def _draw(self, position: int, neuron: int) -> Draw:
        """The rows that a learned node takes for a class."""
        inverse = self.network.regression(self.network.learned[position])
        if self._trains(inverse) or not inverse.sampled or self.options.rows is None:
            return Draw(1.0, inverse.positions)
        return Draw.of(inverse, self.options.rows, self.members.count(neuron))

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

    def _learn(
        self, learner: Learner, position: int, classes: list[int], load: Callable[[bool], Iterable[list[Unit]]]
    ) -> None:
        """Fit a node for some classes; the others have it, and are carried on."""
        node = self.network.learned[position]
        inverse = self.network.regression(node)
        others = [c for c in self.classes if c not in classes]
        together = self._together(inverse, len(classes))
        groups = [classes[i : i + together] for i in range(0, len(classes), together)] or [[]]
        for i, group in enumerate(groups):
            task = Task(position, node, inverse, group, others if i == 0 else [], load)
            if self._trains(inverse):
                schedule = Schedule(self.options.epochs, self.options.seed, self.callbacks, self.verbose)
                steps = self.batches.steps if self.members.all else None
                learner.train(task, schedule, memory=self._training_memory, steps=steps, log=self.log)
            else:
                learner.solve(task, self.options.ridge)
            if self.checkpoint is not None and group:
                counts = None if self.members.counts is None else self.members.counts.tolist()
                marks = "".join(f"{mark:08x}" for mark in self.batches.marks)
                self.checkpoint.note({"samples": self.batches.samples, "counts": counts, "batches": marks})
                weights = {c: tuple(w.numpy() for w in self.results.weights[c][node.index]) for c in group}
                lines = [self.results.lines[node.index, c] for c in group]
                self.checkpoint.write(f"{node.index} {node.name} {group[0]}-{group[-1]}", weights, lines)
        if self.verbose == 1 and classes:
            lines = [self.results.lines[node.index, c] for c in classes]
            mean, part = (float(np.mean([line[key] for line in lines])) for key in ("mse", "relative"))
            self.log(f"  reconstruction error {mean:.4g}, {part:.1%} of the variance (mean of {len(lines)} classes)")

    # The data

    def passing(self) -> Iterator[np.ndarray]:
        """One pass over the data, with a progress bar: arrays ``(n, *input shape)``."""
        progress = Progress(self.batches.steps, 1 if self._shows and self.verbose == 1 and self.replicas.chief else 0)
        for i, x in enumerate(self.batches):
            if self.checkpoint is not None:
                self.checkpoint.touch()
            yield x
            progress.update(i + 1)
        progress.finish()

    def log(self, text: str) -> None:
        if self.verbose and self.replicas.chief:
            print(f"mipin: {text}", flush=True)
