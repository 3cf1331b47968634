"""Streams the data of a fit to each learned node, down to which each class' signal is carried."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from ...data.distribute import Replicas
from ...data.inputs import count, joined, take
from ..inverse import LearnedInverse, Record, Weights
from ..network import ForwardPass, InverseNetwork, PartialWalk
from .frontier import Frontier, Walk, taken
from .members import Members
from .segments import Segment, Sizes, planned
from .unit import Unit

# A sampled regression takes at least so many positions of each sample that it uses: a forward pass should pay.
POSITIONS = 256
# It uses at least so many samples on average: few rows should not all come from one sample, or by chance from none.
SAMPLES = 16
# One that takes whole maps uses so many: the positions of one map are much alike.
WHOLE_SAMPLES = 128


class Draw(NamedTuple):
    """How many rows a class' regression draws from the data.

    Attributes:
        rate: The share of the samples that it uses, in (0, 1].
        take: How many positions it takes of each of them.
    """

    rate: float
    take: int

    @classmethod
    def of(cls, inverse: LearnedInverse, limit: int | None, samples: int) -> Draw:
        """A draw of about ``limit`` rows from ``samples`` samples; of every row if ``limit`` is None."""
        if limit is None:
            return cls(1.0, inverse.positions)
        samples = max(samples, 1)
        if inverse.whole:
            used = max(limit / inverse.positions, WHOLE_SAMPLES)
            return cls(min(1.0, used / samples), inverse.positions)
        least = min(POSITIONS, -(-limit // SAMPLES))
        take = min(inverse.positions, max(least, -(-limit // samples)))
        return cls(min(1.0, limit / take / samples), take)


class Part(NamedTuple):
    """What a node's regression reads of some samples of a unit.

    Attributes:
        signal: The source signal at the node's output, ``(n, ...)``; where
            several signals meet, a tuple of them.
        target: What the node's inverse is to reconstruct, ``(n, ...)``.
        record: What the inverse needs of the forward pass.
        rows: The samples' positions in the unit, int ``(n,)``.
    """

    signal: Any
    target: tf.Tensor
    record: Record
    rows: np.ndarray


class Samples:
    """Streams the data of a fit to each learned node in turn.

    The learned nodes are fitted in :class:`~.segments.Segment` after segment.
    For each, a pass over the data runs the network and keeps the targets and
    records of the segment's nodes. The signals of all classes wait where they
    have come to, and go on from there in the next segment. So the memory
    changes how often the network runs, and the numbers by rounding only.

    Args:
        network: The inverse network.
        passing: Starts a pass over the data, batches ``(n, ...)``.
        members: Which samples fit which class.
        classes: The classes that are fitted.
        draw: The draw of a learned node, by its position, and a class.
        count: How many samples a pass has.
        replicas: The devices and hosts that share the batches.
        seed: Of the samples and positions that are drawn.
        memory: Bytes that may be kept.
        dtype: Of the signals.
        carried: Whether each pass gives the same samples, so that signals can
            be carried from one pass to the next.

    Attributes:
        segments: See :class:`~.segments.Segment`.
    """

    def __init__(
        self,
        network: InverseNetwork,
        passing: Callable[[], Iterator[np.ndarray]],
        members: Members,
        classes: list[int],
        draw: Callable[[int, int], Draw],
        *,
        count: int,
        replicas: Replicas,
        seed: int,
        memory: int,
        dtype: Any = tf.float32,
        carried: bool = True,
    ):
        self.network, self.passing, self.members, self.classes, self.draw = network, passing, members, classes, draw
        self.replicas, self.seed, self.dtype, self.carried = replicas, seed, dtype, carried
        self._sizes = Sizes(network)
        self._shares: dict[tuple[int, int], float] = {}
        self._units: dict[int, Unit] = {}
        # Each sample fits all classes, or one.
        several = len(classes) if members.all else 1
        waiting = [several * size * self._most(i) * count for i, size in enumerate(self._sizes.waiting)]
        spilled = carried and max(waiting, default=0.0) > memory / 2
        left = memory - (0 if spilled else int(max(waiting, default=0.0)))
        self.frontier = Frontier(spilled)
        self.segments = planned(self._sizes, lambda i: self._most(i) * count, left, carried)

    def share(self, position: int, neuron: int) -> float:
        """The share of a class' samples that the learned nodes from a position on use."""
        if position == 0 and not self.members.all:
            return 1.0  # before the first pass it is not known how many samples a class has
        key = (position, 0 if self.members.all else neuron)
        if key not in self._shares:
            below = range(position, len(self.network.learned))
            self._shares[key] = max(self.draw(i, neuron).rate for i in below)
        return self._shares[key]

    def _most(self, position: int) -> float:
        """The same, before the samples of each class are counted."""
        return self.share(position, self.classes[0]) if self.members.all else 1.0

    # The data

    def load(self, segment: Segment) -> Iterator[list[Unit]]:
        """One pass over this host's samples, after their forward passes: each time a list of one unit a replica."""
        nodes = self.network.learned[segment.first : segment.last]
        begun = self.carried and segment.first > 0
        low = self.network.position(self.network.learned[segment.first - 1]) if begun else 0
        high = self.network.position(nodes[-1]) + 1
        whole = len(self.segments) <= 3  # of many passes the pieces are traced once

        def run(x: Any, samples: np.ndarray, draws: np.ndarray, bounds: np.ndarray | None) -> Unit:
            unit = self._units.get(int(samples[0]))
            if unit is None:
                order = np.argsort(draws, kind="stable")
                edges = np.array([0, count(x)]) if bounds is None else bounds
                unit = Unit(order, samples[order], draws[order], edges, np.zeros((0, 0), bool), np.arange(0))
                if self.carried:
                    self._units[int(samples[0])] = unit
            unit.held = self._held(unit, segment.first if begun else 0)
            if not begun:
                unit.taken_for = np.zeros((count(x), self.network.graph.neurons), bool)
            if not len(unit.held):  # of such a unit nobody asks for anything
                unit.forward_pass = ForwardPass(tf.zeros(()), {}, {})
                return unit
            unit.forward_pass = self.network.forward_between(
                take(x, unit.order[unit.held]), low, high, tuple(nodes), logits=not begun, whole=whole
            )
            if not begun:
                if not self.members.all:
                    unit.taken_for[unit.held] = self.members.taken_for(unit.forward_pass.logits)
            return unit

        for x, samples, draws, bounds in self._blocks():
            own = bounds if self.replicas.count == 1 else None
            yield self.replicas.run(functools.partial(run, bounds=own), x, samples, draws)

    def _held(self, unit: Unit, position: int) -> np.ndarray:
        """Which samples of a unit the learned nodes from a position on need."""
        if position == 0 and not self.members.all:
            return np.arange(len(unit.draws))
        if self.members.all:
            return np.flatnonzero(unit.draws < self.share(position, self.classes[0]))
        shares = np.zeros(self.network.graph.neurons)
        shares[self.classes] = [self.share(position, c) for c in self.classes]
        return np.flatnonzero(unit.draws < np.where(unit.taken_for, shares, 0).max(axis=1))

    def _blocks(self) -> Iterator[tuple[Any, np.ndarray, np.ndarray, np.ndarray]]:
        """This host's batches, small ones put together: samples, their indices and draws, and the batches' bounds."""
        # The stream that drew for the layer below the head before all shared theirs: it keeps that one's samples.
        choose = np.random.default_rng([self.seed, 1])
        waiting: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
        first = 0
        for i, x in enumerate(self.passing()):
            n = count(x)
            draws = choose.random(n)
            if self.replicas.mine(i):
                waiting.append((x, np.arange(first, first + n), draws))
            first += n
            if waiting and sum(len(part[1]) for part in waiting) + n > self._sizes.unit:
                yield _joined(waiting)
                waiting = []
        if waiting:
            yield _joined(waiting)

    # The walks

    def advance(self, unit: Unit, neuron: int, position: int, weights: dict[int, Weights]) -> Walk:
        """Carry a class' signal down to a learned node, of the samples that it and those below it need.

        Args:
            unit: Of the present segment.
            neuron: The class.
            position: Of the node among the learned ones.
            weights: What is fitted of the class so far, by the node's index.
        """
        node, forward_pass = self.network.learned[position], unit.present
        walk = unit.walks.get(neuron)
        if walk is None:
            rows = unit.held if self.members.all else unit.held[unit.taken_for[unit.held, neuron]]
            walk = Walk(rows, PartialWalk())
            unit.walks[neuron] = walk
        self.frontier.at_hand(walk)
        kept = int(np.searchsorted(unit.draws[walk.rows], self.share(position, neuron)))
        if kept < len(walk.rows):
            walk.rows = walk.rows[:kept]
            for parts in walk.partial.signals.values():
                parts[:] = [part[:kept] for part in parts]
        if kept:
            at = np.searchsorted(unit.held, walk.rows)
            between = self.network.nodes[walk.partial.position : self.network.position(node)]
            records = {n.index: forward_pass.records[n.index] for n in between if n.index in forward_pass.records}
            records = tf.nest.map_structure(lambda tensor: taken(tensor, at), records)
            logits = forward_pass.logits if walk.partial.signals else taken(forward_pass.logits, at)
            own = ForwardPass(logits, records, {})
            self.network.invert_down_to(own, neuron, node, weights, walk.partial, self.dtype)
        return walk

    def trim(self, unit: Unit, position: int) -> None:
        """Drop the samples that neither a learned node nor those below it need, where they fit all classes."""
        if self.members.all:
            held = self._held(unit, position)
            if len(held) < len(unit.held):
                own = np.arange(len(held))  # the first ones, as they are sorted by their draws
                kept = unit.present
                records, targets = tf.nest.map_structure(
                    lambda tensor: taken(tensor, own), (kept.records, kept.targets)
                )
                logits = taken(kept.logits, own) if kept.logits.shape.rank else kept.logits
                unit.forward_pass, unit.held = ForwardPass(logits, records, targets), held

    def pass_by(self, unit: Unit, neuron: int, position: int, weights: dict[int, Weights]) -> None:
        """Carry a class' signal down to a learned node that is fitted already; arguments as of :meth:`advance`."""
        self.frontier.put_away(self.advance(unit, neuron, position, weights))

    def part(self, unit: Unit, neuron: int, position: int, weights: dict[int, Weights]) -> Part | None:
        """What a learned node's regression reads of a unit for one class; None if it is none of its samples.

        Args:
            unit, neuron, position, weights: See :meth:`advance`.
        """
        node = self.network.learned[position]
        walk = self.advance(unit, neuron, position, weights)
        rows = walk.rows[: int(np.searchsorted(unit.draws[walk.rows], self.draw(position, neuron).rate))]
        part = None
        if len(rows):
            at, first = np.searchsorted(unit.held, rows), np.arange(len(rows))
            arrived = tuple(taken(signal, first) for signal in walk.partial.signals[node.output])
            record = tuple(taken(tensor, at) for tensor in unit.present.records.get(node.index, ()))
            signal = arrived if node.step is None else arrived[0]
            part = Part(signal, taken(unit.targets(node), at), record, rows)
        self.frontier.put_away(walk)
        return part

    def positions(self, position: int, samples: np.ndarray, inverse: LearnedInverse, take: int) -> np.ndarray | None:
        """The positions to take of each sample, int ``(n, take)``; None for all.

        They depend on the seed, the node and the sample alone, not on batches,
        classes or hosts.
        """
        if take >= inverse.positions:
            return None
        drawn = np.empty((len(samples), take), np.int64)
        for row, sample in zip(drawn, samples.tolist(), strict=True):
            rng = np.random.Generator(np.random.Philox(key=[self.seed, position], counter=[0, 0, 0, sample]))
            row[:] = rng.choice(inverse.positions, take, replace=False, shuffle=False)
        return drawn


def _joined(parts: Sequence[tuple[Any, ...]]) -> tuple[Any, np.ndarray, np.ndarray, np.ndarray]:
    """Batches as one, and where in it each begins and ends."""
    bounds = np.cumsum([0, *(len(part[1]) for part in parts)])
    if len(parts) == 1:
        return (*parts[0], bounds)
    x, samples, draws = map(list, zip(*parts, strict=True))
    return joined(x), np.concatenate(samples), np.concatenate(draws), bounds
