"""The loop of a fit: from the logit down, one learned node after the other."""

from __future__ import annotations

import functools
import json
import math
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
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
from .samples import Draw, Samples, Unit
from .segments import Segment
from .training import Schedule, TrainingBatch, train

# With a smaller ridge the rounding of a float32 signal counts: it would be a direction of its own, which a regression
# divides by. The default of 1e-3 damps it.
WALK_IN_FLOAT64_BELOW = 1e-5

Load = Callable[[], Iterable[list[Unit]]]


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
        self._weights: dict[int, dict[int, Weights]] = {c: {} for c in classes}
        self._lines: dict[tuple[int, int], dict[str, Any]] = {}
        self._shows = True  # whether a pass shows its progress
        self.members = Members(network, batches, options.samples, self.replicas, self.passing, self.log)
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
            for _ in self.passing():
                pass
        options = self.options
        self.samples = Samples(
            self.network, self.passing, self.members, self.classes, self._draw,
            count=self.batches.count(), replicas=self.replicas, seed=options.seed, memory=self.memory,
            dtype=tf.float64 if options.ridge < WALK_IN_FLOAT64_BELOW else tf.float32,
            carried=self.batches.source_type != "generator",
        )  # fmt: skip
        plan = self._plan()
        if any(map(self._missing, range(len(self.network.learned)))):
            times = "once" if plan.passes == 1 else f"about {plan.passes:,} times"
            self.log(f"{plan.size} to learn, passing over the data {times}")
        for segment in self.samples.segments:
            if any(map(self._missing, range(segment.first, len(self.network.learned)))):
                self._learn_segment(segment, plan)
        self._warn_of_little()
        return self._weights

    def _missing(self, position: int) -> list[int]:
        """The classes that a learned node has no weights of yet."""
        node = self.network.learned[position]
        return [c for c in self.classes if node.index not in self._weights[c]]

    def _learn_segment(self, segment: Segment, plan: cost.Plan) -> None:
        """Fit the nodes of a segment; where all of them are fitted, carry the signals on."""
        start = time.monotonic()
        units: list[list[Unit]] = []
        kept = segment.kept or not any(map(self._missing, range(segment.first, segment.last)))
        if kept:
            for each in self.samples.load(segment):
                units.append(each)
                self._count(each, last=False)
            self._count([], last=True)
        for position in range(segment.first, segment.last):
            node, classes = self.network.learned[position], self._missing(position)
            load: Load = (lambda: units) if kept else functools.partial(self._load, segment)
            if classes:
                self.log(f"layer {node.name} ({position + 1} of {len(self.network.learned)})")
            self._learn(position, node, classes, load)
            if position == 0 and len(classes) == len(self.classes):
                self._log_how_long(plan, time.monotonic() - start)
            for unit in (unit for each in units for unit in each if unit.forward_pass):
                unit.forward_pass.targets.pop(node.index, None)
        for unit in (unit for each in units for unit in each):
            unit.forward_pass = None

    def _load(self, segment: Segment) -> Iterator[list[Unit]]:
        """One pass over the data for a segment that keeps nothing."""
        for each in self.samples.load(segment):
            self._count(each, last=False)
            yield each
            for unit in each:
                unit.forward_pass = None
        self._count([], last=True)

    def _count(self, units: list[Unit], last: bool) -> None:
        """Count the samples of each class in the first pass, in which all of them come by."""
        if self.members.all or self.members.counts is not None:
            return
        self._counted = getattr(self, "_counted", self.members.none_of_any_class())
        self._counted = self._counted + sum(self.members.of_each_class(unit.top) for unit in units)
        if last:
            self.members.note(self._counted)

    def _plan(self) -> cost.Plan:
        options, passes = self.options, 0
        for segment in self.samples.segments:
            node = self.network.learned[segment.first]
            inverse = self.network.regression(node)
            if segment.kept:
                passes += 1
            elif self._trains(inverse):
                passes += options.epochs + 1
            else:
                passes += math.ceil(len(self.classes) / self._together(inverse, len(self.classes)))
        epochs = options.epochs if options.conv_solver == "trained" else None
        return cost.Plan(self.network, len(self.classes), passes, epochs, options.rows)

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

    def _learn(self, position: int, node: Node, classes: list[int], load: Load) -> None:
        """Fit a node for some classes; the others have it, and are carried on."""
        inverse = self.network.regression(node)
        others = [c for c in self.classes if c not in classes]
        together = self._together(inverse, len(classes))
        groups = [classes[i : i + together] for i in range(0, len(classes), together)] or [[]]
        for i, group in enumerate(groups):
            passing = others if i == 0 else []
            if self._trains(inverse):
                self._train(position, node, inverse, group, passing, load)
            else:
                self._solve(position, node, inverse, group, passing, load)
            if self.checkpoint is not None and group:
                counts = None if self.members.counts is None else self.members.counts.tolist()
                marks = "".join(f"{mark:08x}" for mark in self.batches.marks)
                self.checkpoint.note({"samples": self.batches.samples, "counts": counts, "batches": marks})
                weights = {c: tuple(w.numpy() for w in self._weights[c][node.index]) for c in group}
                lines = [self._lines[node.index, c] for c in group]
                self.checkpoint.write(f"{node.index} {node.name} {group[0]}-{group[-1]}", weights, lines)
        if self.verbose == 1 and classes:
            lines = [self._lines[node.index, c] for c in classes]
            mean, part = (float(np.mean([line[key] for line in lines])) for key in ("mse", "relative"))
            self.log(f"  reconstruction error {mean:.4g}, {part:.1%} of the variance (mean of {len(lines)} classes)")

    def _solve(
        self, position: int, node: Node, inverse: LearnedInverse, classes: list[int], passing: list[int], load: Load
    ) -> None:
        sums = {c: inverse.regression() for c in classes}
        draws = {c: self._draw(position, c) for c in classes}
        take = max((draw.take for draw in draws.values()), default=0)
        rate = max((draw.rate for draw in draws.values()), default=0.0)

        for units in load():
            self.replicas.each(functools.partial(self._pass_by, position, passing), [(unit,) for unit in units])
            used = [unit.samples[: int(np.searchsorted(unit.draws, rate))] for unit in units]
            drawn = [self.samples.positions(position, samples, inverse, take) for samples in used]
            for c in classes:
                parts = self.replicas.each(
                    lambda unit, c=c: self.samples.part(unit, c, position, self._weights[c]), [(u,) for u in units]
                )
                for unit, part, positions in zip(units, parts, drawn, strict=False):
                    if part is not None:
                        at = None if positions is None else positions[part.rows, : draws[c].take]
                        inverse.add_rows(sums[c], part.signal, part.target, at, part.record)
        if self.replicas.hosts > 1:
            for c in classes:
                sums[c].exchange(functools.partial(self.replicas.total, what=f"layer {node.name}, class {c}"))
        for c in classes:
            if not self.members.count(c):
                raise self.members.none(c)
            solution = sums.pop(c).solve(self.options.ridge, np.float32)
            weights = inverse.assemble(solution.kernel, solution.bias)
            self.keep(node, c, weights, solution.mse, solution.variance, solution.rows)

    def _pass_by(self, position: int, classes: list[int], unit: Unit) -> None:
        for c in classes:
            self.samples.pass_by(unit, c, position, self._weights[c])

    def _train(
        self, position: int, node: Node, inverse: LearnedInverse, classes: list[int], passing: list[int], load: Load
    ) -> None:
        def each_batch(wanted: list[int], show: bool) -> Iterator[TrainingBatch]:
            self._shows = show
            for units in load():
                for unit in units:
                    for c in wanted:
                        part = self.samples.part(unit, c, position, self._weights[c])
                        if part is not None:
                            # The batches of the data, in its order
                            for chosen in unit.batches(part.rows):
                                signal = tf.cast(tf.gather(part.signal, chosen), tf.float32)
                                yield c, signal, tf.cast(tf.gather(part.target, chosen), tf.float32)
            self._shows = True

        for units in load() if passing else ():
            for unit in units:
                self._pass_by(position, passing, unit)
        options = self.options
        # An endless generator gives new samples in each epoch.
        memory = 0 if self.batches.source_type == "generator" else self.memory
        samples = {c: self.members.count(c) for c in classes}
        schedule = Schedule(options.epochs, options.seed, self.callbacks, self.verbose)
        found = train(inverse, samples, each_batch, schedule, memory=memory, log=self.log) if classes else {}
        for c, trained in found.items():
            if not trained.squares.samples:
                raise self.members.none(c)
            self.keep(node, c, trained.weights, *trained.squares.error(), trained.squares.rows)

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
